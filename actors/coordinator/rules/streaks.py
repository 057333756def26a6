"""Streaks of fruitless groups, which end a run: a pure state machine."""

from collections import Counter

from actors.errors import Halted
from actors.messages import Group

FRUITLESS_BATCHES = 4
"""Number of batches whose groups, all without any difference in reward, end the run."""


class FruitlessStreak:
    """Counts consecutive groups without any difference in reward.

    over: why the training is over after a streak of FRUITLESS_BATCHES, if it has led somewhere; empty before.
    """

    def __init__(self, problems_per_update: int, weighs_answers: bool) -> None:
        """weighs_answers: whether the reward does; otherwise right answers do not mean that anything is learned."""
        self._weighs_answers = weighs_answers
        self.over = ""
        self._limit = FRUITLESS_BATCHES * problems_per_update
        self._found = Counter[str]()

    def see(self, group: Group, learned: bool) -> None:
        """Count a verified group. learned: whether the run has trained on a difference in reward.

        Raises Halted at the end of a streak, unless all its verified answers were right or, in a run that has learned,
        those of some groups, and no group failed.
        """
        if self.over or not group.zero_variance:
            self._found.clear()
            return
        right = not group.failed and all(r.parts["accuracy"] == 1.0 for r in group.rewards if not r.masked)
        self._found["right" if right else "failed" if group.failed or group.complaint else "wrong"] += 1
        length, solved = self._found.total(), self._found["right"] if self._weighs_answers else 0
        if length < self._limit:
            return
        if solved == length:
            self.over = "every sample of the last groups is right: nothing is left to learn"
            return
        if solved and learned and not self._found["failed"]:
            counts = f"of the last {length} problems {solved} were always solved, and the others never"
            self.over = f"nothing more can be learned: {counts}"
            return
        found = "no answer could be verified" if group.failed else "all samples of a problem had the same reward"
        if group.complaint:
            found += f", and the reward function {group.complaint}"
        raise Halted(
            f"nothing can be learned: in the last {self._limit} groups {found}; one problem is "
            f"{group.problem.prompt!r}, its reference answer {group.problem.gold!r}, "
            f"a response {group.samples[0].text!r}"
        )

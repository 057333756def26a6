"""Which problems are worth another try, and whether any still are."""

from actors.errors import Halted
from actors.messages import Group, Problem

FRUITLESS_BATCHES = 4
"""So many batches' worth of groups in a row without any difference in reward, and nothing can be learned."""


class Curriculum:
    """Solve rates by problem: a pure state machine.

    With `rest_epochs`, a problem whose answers were all right, or all wrong, is left out for so many epochs: its next
    group would most likely have nothing to learn from either.
    """

    def __init__(self, rest_epochs: int, state: dict[str, list[int]] | None = None) -> None:
        """state: `Curriculum.state` of an earlier process."""
        self._rest = rest_epochs
        self._records = {problem: list(record) for problem, record in (state or {}).items()}

    @property
    def state(self) -> dict[str, list[int]]:
        """By problem id: answers judged, those right, and the first epoch in which to try it again."""
        return {problem: list(record) for problem, record in self._records.items()}

    def see(self, group: Group, epoch: int) -> None:
        """Count a group that was used or dropped, drawn in this epoch (from 0)."""
        scores = [reward.parts["accuracy"] for reward in group.rewards if not reward.masked]
        judged, right, until = self._records.get(group.problem.id, (0, 0, 0))
        unanimous = bool(scores) and len(set(scores)) == 1
        again = epoch + 1 + self._rest if unanimous else until
        self._records[group.problem.id] = [judged + len(scores), right + sum(s == 1.0 for s in scores), again]

    def rests(self, problem: Problem, epoch: int) -> bool:
        """Whether a problem is left out in this epoch; not in one before its rest, whose group may still be owed."""
        again = self._records.get(problem.id, (0, 0, 0))[2]
        return again - self._rest <= epoch < again


class FruitlessStreak:
    """Counts groups in a row whose samples all earned the same: a pure state machine.

    solved: every answer of a streak of FRUITLESS_BATCHES was right, so that nothing is left to learn.
    """

    def __init__(self, problems_per_update: int) -> None:
        self.solved = False
        self._limit = FRUITLESS_BATCHES * problems_per_update
        self._length = 0
        self._all_right = False

    def see(self, group: Group) -> None:
        """Count a verified group; Halted at the end of a streak of anything but right answers, of those judged."""
        right = not group.failed and all(r.parts["accuracy"] == 1.0 for r in group.rewards if not r.masked)
        self._all_right = right and (self._all_right or self._length == 0)
        self._length = self._length + 1 if group.zero_variance else 0
        self.solved = self.solved or (self._all_right and self._length >= self._limit)
        if self._length < self._limit or self._all_right:
            return
        found = "no answer could be judged" if group.failed else "all samples of a problem earned the same"
        if group.complaint:
            found += f", and the reward function {group.complaint}"
        raise Halted(
            f"nothing can be learned: in the last {self._limit} groups {found}; "
            f"a problem reads {group.problem.prompt!r}, gold {group.problem.gold!r}, "
            f"an answer {group.samples[0].text!r}"
        )

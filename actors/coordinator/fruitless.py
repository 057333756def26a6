"""Whether anything is left to learn."""

from actors.errors import Halted
from actors.messages import Group

FRUITLESS_BATCHES = 4
"""So many batches' worth of groups in a row without any difference in reward, and nothing can be learned."""


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

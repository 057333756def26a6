"""When nothing is left to learn, or nothing can be."""

from actors.errors import Halted
from actors.messages import Group

BARREN_BATCHES = 4
"""So many batches' worth of groups in a row without any difference in reward, and nothing can be learned."""


class Drought:
    """Counts groups in a row whose samples all earned the same.

    solved: every answer of a whole drought was right, so that nothing is left to learn.
    """

    def __init__(self, problems_per_update: int) -> None:
        self.solved = False
        self._limit = BARREN_BATCHES * problems_per_update
        self._barren = 0
        self._all_right = False

    def see(self, group: Group) -> None:
        """Count a verified group; Halted at the end of a drought of anything but right answers."""
        right = all(reward.verdict.score == 1.0 for reward in group.rewards)
        self._all_right = right and (self._all_right or self._barren == 0)
        self._barren = self._barren + 1 if group.zero_variance else 0
        if self._barren < self._limit:
            return
        if self._all_right:
            self.solved = True
            return
        found = "no answer could be judged" if group.failed else "all samples of a problem earned the same"
        raise Halted(
            f"nothing can be learned: in the last {self._limit} groups {found}; "
            f"a problem reads {group.problem.prompt!r}, gold {group.problem.gold!r}, "
            f"an answer {group.samples[0].text!r}"
        )

"""Which problems are worth another try."""

from actors.messages import Group, Problem


class Curriculum:
    """Solve rates by problem. With `rest_epochs`, a problem whose answers were all right, or all wrong, is left out for
    so many epochs: its next group would most likely have nothing to learn from either. A pure state machine.
    """

    def __init__(self, rest_epochs: int, state: dict[str, list[int]] | None = None) -> None:
        """state: see `state`, of an earlier life."""
        self._rest = rest_epochs
        self._records = {problem: list(record) for problem, record in (state or {}).items()}

    @property
    def state(self) -> dict[str, list[int]]:
        """By problem id: answers judged, those right, and the first epoch in which to try it again."""
        return {problem: list(record) for problem, record in self._records.items()}

    def see(self, group: Group, epoch: int) -> None:
        """Take in a verified group that is done with, drawn for this epoch (from 0)."""
        scores = [reward.verdict.score for reward in group.rewards if not reward.masked]
        judged, right, until = self._records.get(group.problem.id, (0, 0, 0))
        settled = bool(scores) and len(set(scores)) == 1
        again = epoch + 1 + self._rest if settled else until
        self._records[group.problem.id] = [judged + len(scores), right + sum(s == 1.0 for s in scores), again]

    def rests(self, problem: Problem, epoch: int) -> bool:
        """Whether a problem is left out in this epoch. Not in one before its rest, whose group may still be owed."""
        again = self._records.get(problem.id, (0, 0, 0))[2]
        return again - self._rest <= epoch < again

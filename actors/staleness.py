"""How far ahead of the learner the rollouts may run, and which groups make the next batch."""

from actors.messages import Group


class Pacing:
    """Admission of groups and their assembly into batches: a pure state machine.

    `version` is the version that new groups are sampled from. At most

        capacity = min(max_running − running, (η + version + 1) · B − (accepted + running))

    more groups may start (AReaL, arXiv 2505.24298), where B is `problems_per_update` and `accepted` counts every group
    that has been or will be trained on since version 0. Counting alone does not bound stragglers. Batches therefore
    take the oldest version first, and the update of version v waits for stragglers unless the groups left behind can
    still be used in time: for every version u, those sampled by u or before must fit into the updates v + 1 … u + η,
    which take (u + η − v) · B of them. (For η = 1 this says: wait while a group of version v − 1 is on its way.)
    `ahead` is what stands for η in the capacity: 0 has rollouts and updates take turns, whatever η allows.
    """

    def __init__(
        self,
        problems_per_update: int,
        max_staleness: int,
        max_running: int,
        version: int = 0,
        updates: int | None = None,
    ) -> None:
        """updates: the version after which no group is needed; None for no end."""
        self.version = version
        self._most = None if updates is None else updates * problems_per_update
        self._per_update = problems_per_update
        self.ahead = max_staleness
        self._max_staleness = max_staleness
        self._max_running = max_running
        self._accepted = version * problems_per_update
        self._running: dict[int, int] = {}
        self._waiting: list[Group] = []

    @property
    def capacity(self) -> int:
        """Groups that may start now."""
        running = len(self._running)
        admissible = (self.ahead + self.version + 1) * self._per_update - (self._accepted + running)
        needed = admissible if self._most is None else self._most - (self._accepted + running)
        return min(self._max_running - running, admissible, needed)

    @property
    def running(self) -> int:
        return len(self._running)

    def runs(self, version: int) -> bool:
        """Whether a group of this version is on its way."""
        return version in self._running.values()

    @property
    def waiting(self) -> int:
        """Verified groups that no batch has taken yet."""
        return len(self._waiting)

    def admit(self, index: int) -> None:
        """Start the group with this index on the current version."""
        if self.capacity <= 0:
            raise ValueError(f"group {index} was admitted without capacity")
        self._running[index] = self.version

    def accept(self, group: Group) -> None:
        """A running group is verified and waits for its batch."""
        del self._running[group.index]
        self._accepted += 1
        self._waiting.append(group)

    def give_back(self, index: int) -> None:
        """A running group came to nothing; its capacity is free again."""
        del self._running[index]

    def take_batch(self) -> tuple[Group, ...] | None:
        """The groups of the next update, oldest version first; None while it has to wait."""
        if len(self._waiting) < self._per_update:
            return None
        self._waiting.sort(key=lambda group: (group.version, group.index))
        batch = tuple(self._waiting[: self._per_update])
        left_behind = [group.version for group in self._waiting[self._per_update :]] + list(self._running.values())
        for sampled_by in set(left_behind):
            room = (sampled_by + self._max_staleness - self.version) * self._per_update
            if sum(version <= sampled_by for version in left_behind) > room:
                return None
        del self._waiting[: self._per_update]
        return batch

    def advance(self) -> None:
        """New groups are sampled from the next version."""
        self.version += 1


class Cursor:
    """Which groups, numbered by admission, are behind the current adapter: what a resumed run must not repeat.

    `used` are the indices beyond `next_unused` that a batch has taken out of order, or that were passed over.
    """

    def __init__(self, next_unused: int = 0, used: tuple[int, ...] = ()) -> None:
        self.next_unused = next_unused
        self._used = set(used)
        self._admitted = next_unused

    @property
    def used(self) -> tuple[int, ...]:
        return tuple(sorted(self._used))

    def admit(self) -> int:
        """Index of the next group to start."""
        self._admitted = max(self._admitted, self.next_unused)
        while self._admitted in self._used:
            self._admitted += 1
        self._admitted += 1
        return self._admitted - 1

    def pass_over(self, index: int) -> None:
        """Count a group that no batch will take as done with."""
        self._used.add(index)
        self._settle()

    def use(self, batch: tuple[Group, ...]) -> None:
        """Count a batch as part of the adapter's history."""
        self._used.update(group.index for group in batch)
        self._settle()

    def _settle(self) -> None:
        while self.next_unused in self._used:
            self._used.remove(self.next_unused)
            self.next_unused += 1

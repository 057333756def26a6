"""How far ahead of the learner the rollouts may run, and which groups make the next batch."""

from collections import Counter, defaultdict

from actors.messages import Group


class StalenessManager:
    """Admission of groups and their assembly into batches: a pure state machine.

    `version` is the version that new groups are sampled from. At most

        capacity = min(max_running − running, (η + version + 1) · B − (accepted + running))

    more groups may start (AReaL, arXiv 2505.24298), where B is `problems_per_update` and `accepted` counts every group
    that has been or will be trained on since version 0. Counting alone does not bound stragglers. Batches therefore
    take the oldest version first, and the update of version v waits for stragglers unless the groups left behind can
    still be used in time: for every version u, those sampled by u or before must fit into the updates v + 1 … u + η,
    which take (u + η − v) · B of them. (For η = 1 this says: wait while a group of version v − 1 is on its way.)
    `ahead` is what stands for η in the capacity: 0 has rollouts and updates take turns, whatever η allows. What a group
    costs does not grow with their number: groups are counted by version, of which only a few are alive.
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
        self._running_on: Counter[int] = Counter()
        self._waiting: defaultdict[int, list[Group]] = defaultdict(list)

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
        return self._running_on[version] > 0

    @property
    def waiting(self) -> int:
        """Verified groups that no batch has taken yet."""
        return sum(map(len, self._waiting.values()))

    def admit(self, index: int) -> None:
        """Start the group with this index on the current version."""
        if self.capacity <= 0:
            raise ValueError(f"group {index} was admitted without capacity")
        self._running[index] = self.version
        self._running_on[self.version] += 1

    def accept(self, group: Group) -> None:
        """A running group is verified and waits for its batch."""
        self._end(group.index)
        self._accepted += 1
        self._waiting[group.version].append(group)

    def give_back(self, index: int) -> None:
        """A running group came to nothing; its capacity is free again."""
        self._end(index)

    def take_batch(self) -> tuple[Group, ...] | None:
        """The groups of the next update, oldest version first; None while it has to wait."""
        if self.waiting < self._per_update:
            return None
        taken: Counter[int] = Counter()
        behind = 0
        for version in sorted(self._waiting.keys() | self._running_on.keys()):
            waiting = len(self._waiting.get(version, ()))
            taken[version] = min(waiting, self._per_update - taken.total())
            behind += waiting - taken[version] + self._running_on[version]
            if behind > max((version + self._max_staleness - self.version) * self._per_update, 0):
                return None
        return tuple(group for version, count in taken.items() for group in self._take(version, count))

    def _take(self, version: int, count: int) -> list[Group]:
        """The first groups of a version, by index."""
        groups = sorted(self._waiting.pop(version, ()), key=lambda group: group.index)
        if groups[count:]:
            self._waiting[version] = groups[count:]
        return groups[:count]

    def _end(self, index: int) -> None:
        version = self._running.pop(index)
        self._running_on[version] -= 1
        if not self._running_on[version]:
            del self._running_on[version]

    def advance(self) -> None:
        """New groups are sampled from the next version."""
        self.version += 1

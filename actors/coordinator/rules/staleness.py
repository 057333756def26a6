"""Decides how far the rollouts may run ahead of the learner, and selects the groups of the next batch."""

from collections import Counter, defaultdict

from microbudget_rl.actors.messages import Group


class StalenessManager:
    """Admits groups and assembles them into batches: a pure state machine.

    `version` is the version that new groups are sampled from. At most

        capacity = min(max_running − running, (η + version + 1) · B − (accepted + running))

    more groups may start (AReaL, arXiv 2505.24298), where η is `max_staleness`, B is `problems_per_update`, and
    `accepted` counts every group that has been or will be trained on since version 0. Counting alone does not bound the
    staleness of stragglers. Batches therefore take the oldest version first, and the update of version v waits for
    stragglers unless the groups left behind can still be used in time: for every version u, those sampled by u or
    before must fit into the updates v + 1 … u + η, which take (u + η − v) · B of them. (For η = 1: wait while a group
    of version v − 1 is running.)
    """

    def __init__(
        self,
        *,
        problems_per_update: int,
        max_staleness: int,
        max_running: int,
        version: int = 0,
        updates: int | None = None,
    ) -> None:
        """updates: see `limit`."""
        self.version, self._per_update = version, problems_per_update
        self._max_staleness, self._max_running = max_staleness, max_running
        self.limit(updates)
        self._accepted = version * problems_per_update
        self._running: dict[int, int] = {}  # version by index
        self._waiting: defaultdict[int, list[Group]] = defaultdict(list)

    def limit(self, updates: int | None) -> None:
        """Admit no groups beyond those that the versions up to this one need; None for no end."""
        self._needed = float("inf") if updates is None else updates * self._per_update

    @property
    def capacity(self) -> int:
        """Number of groups that may start now."""
        most = min((self._max_staleness + self.version + 1) * self._per_update, self._needed)
        return int(min(self._max_running - self.running, most - self._accepted - self.running))

    @property
    def running(self) -> int:
        """Number of groups that are being generated or verified."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of verified groups that no batch has taken yet."""
        return sum(map(len, self._waiting.values()))

    def admit(self, index: int) -> None:
        if self.capacity <= 0:
            raise ValueError(f"group {index} was admitted without capacity")
        self._running[index] = self.version

    def accept(self, group: Group) -> None:
        """Move a verified group from running to waiting."""
        self.give_back(group.index)
        self._accepted += 1
        self._waiting[group.version].append(group)

    def give_back(self, index: int) -> None:
        del self._running[index]

    def take_batch(self) -> tuple[Group, ...] | None:
        """Return the groups of the next update, by version and index; None while the update has to wait."""
        if self.waiting < self._per_update:
            return None
        taken, running, left_behind = Counter[int](), Counter(self._running.values()), 0
        for version in sorted(self._waiting.keys() | running.keys()):
            waiting = len(self._waiting.get(version, ()))
            taken[version] = min(waiting, self._per_update - taken.total())
            left_behind += waiting - taken[version] + running[version]
            if left_behind > max((version + self._max_staleness - self.version) * self._per_update, 0):
                return None
        batch: list[Group] = []
        for version, count in taken.items():
            groups = sorted(self._waiting.pop(version, ()), key=lambda group: group.index)
            batch += groups[:count]
            if groups[count:]:
                self._waiting[version] = groups[count:]
        return tuple(batch)

    def advance(self) -> None:
        """Admit new groups under the next version."""
        self.version += 1

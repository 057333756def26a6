"""Where the time and the tokens went."""

from collections import defaultdict

from actors.protocols import Clock


class Ledger:
    """Seconds of every actor in named activities, and counts.

    Each actor is in exactly one activity at a time, so that its seconds add up to the time since it was first seen.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now: dict[str, tuple[str, float]] = {}
        self._seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._counts: dict[str, int] = defaultdict(int)

    def enter(self, actor: str, activity: str) -> None:
        """From now on `actor` does `activity`."""
        self._settle(actor)
        self._now[actor] = (activity, self._clock.now())

    def count(self, name: str, amount: int = 1) -> None:
        self._counts[name] += amount

    @property
    def seconds(self) -> dict[str, dict[str, float]]:
        """Seconds by actor and activity up to now."""
        for actor in self._now:
            self._settle(actor)
        return {actor: dict(activities) for actor, activities in self._seconds.items()}

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def _settle(self, actor: str) -> None:
        if actor in self._now:
            activity, since = self._now[actor]
            now = self._clock.now()
            self._seconds[actor][activity] += now - since
            self._now[actor] = (activity, now)

"""How often an actor may die."""

from collections import deque

from actors.errors import ActorDied

IN_A_ROW = 3
"""Deaths without a single answer in between that end a run: what cannot start twice will not the third time."""

LATELY = 6
LATELY_S = 1800.0
"""So many deaths within so many seconds end a run too: it would spend its budget on starting."""

FIRST_PAUSE_S = 2.0
"""Before the second new life in a row; each further one waits twice as long. A first death costs no pause."""


class Deaths:
    """The deaths of one actor, and how long to wait before its next life: a pure state machine."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._in_a_row = 0
        self._times: deque[float] = deque(maxlen=LATELY)

    def answered(self) -> None:
        """The actor has done something since it was replaced."""
        self._in_a_row = 0

    def pause(self, now: float, death: ActorDied) -> float:
        """Seconds until the actor should be replaced; raises ActorDied, with the last cause, if it should not be."""
        self._in_a_row += 1
        self._times.append(now)
        if self._in_a_row >= IN_A_ROW:
            raise ActorDied(f"{self._name} died {IN_A_ROW} times in a row: {death}") from death
        if len(self._times) == LATELY and now - self._times[0] < LATELY_S:
            minutes = (now - self._times[0]) / 60
            raise ActorDied(f"{self._name} died {LATELY} times in {minutes:.0f} minutes: {death}") from death
        return FIRST_PAUSE_S * 2 ** (self._in_a_row - 2) if self._in_a_row > 1 else 0.0

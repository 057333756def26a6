"""Whether rollouts and learner work at the same time, or take turns with the whole machine."""

from statistics import median

WARM_UP = 2
"""Turns after a change of mode that are not measured: buffers fill or drain, and caches settle."""

MEASURED = 3
"""Turns measured in each mode."""


class Overlap:
    """The mode, and for `auto` the measurement that chooses it: a pure state machine.

    Measured are ordinary updates, first in turns, then overlapped (the change to which needs no draining), by seconds
    for a token of the batch, so that answers of changing length do not matter.
    """

    def __init__(self, mode: str, max_staleness: int, chosen: bool | None = None) -> None:
        """mode: auto, on or off. chosen: what auto has chosen before."""
        if max_staleness == 0:
            chosen = False
        elif mode != "auto":
            chosen = mode == "on"
        self.chosen = chosen
        self.together = bool(chosen)
        self._turns: list[float] = []
        self._in_turns: float | None = None

    def finish_turn(self, seconds: float, tokens: int) -> str:
        """Take in how long one batch took, from the wait for it to the swap; what was chosen, once it is."""
        if self.chosen is not None:
            return ""
        self._turns.append(seconds / max(tokens, 1))
        if len(self._turns) < WARM_UP + MEASURED:
            return ""
        pace, self._turns = median(self._turns[WARM_UP:]), []
        if self._in_turns is None:
            self._in_turns = pace
            self.together = True
            return ""
        self.chosen = self.together = pace < self._in_turns
        word = "overlapped" if self.chosen else "in turns"
        return f"{word}: {1 / pace:.0f} tokens/s overlapped, {1 / self._in_turns:.0f} in turns"

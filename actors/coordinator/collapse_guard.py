"""Notices when a policy collapses."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from conf.schema import GuardConfig

MAD_TO_SIGMA = 1.4826
"""Times the median absolute deviation is the standard deviation of a normal distribution."""

ENTROPY_LEFT = 0.1
"""Of the entropy in a run's first window: with less, the policy is all but deterministic, however slowly it got there.
(The paper's most rigid model lost 92.5 %.)"""


@dataclass(frozen=True)
class Signal:
    """A metric, and whether it is its fall or its rise that is an alarm.

    share, least: lower bounds of its spread, as a share of its median and absolutely, so that after a calm window not
    every change is an alarm.
    """

    name: str
    falls: bool = True
    rises: bool = False
    share: float = 0.2
    least: float = 0.0


SIGNALS = (
    Signal("policy/entropy"),
    Signal("canary/entropy"),
    Signal("completion/mean_length", rises=True),
    Signal("reward/mean", least=0.02),
    Signal("reward/format", least=0.02),
    Signal("policy/kl_to_base", falls=False, rises=True, share=0.5, least=0.02),
)


@dataclass(frozen=True)
class Alarm:
    """One signal out of its band. value: median of the latest updates. usual: of the window before."""

    signal: str
    value: float
    usual: float

    def __str__(self) -> str:
        return f"{self.signal} went from {self.usual:.3g} to {self.value:.3g}"


class Guard:
    """Compares the latest `patience` updates of each signal with the `window` before them: a pure state machine.

    It goes by median and median absolute deviation, so that neither single freaks nor a steady drift, which is part of
    learning, raise an alarm. After an alarm a signal's windows begin anew, so that a new level is reported once.
    """

    def __init__(self, settings: GuardConfig, rows: Iterable[Mapping[str, float]] = ()) -> None:
        """rows: of metrics.jsonl, of the updates behind the policy, whose alarms were raised before."""
        self._settings = settings
        self._values: dict[str, deque[float]] = {}
        self._first: dict[str, float] = {}
        for row in rows:
            self.look(row)

    def look(self, row: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that an update's row raises; rows come in the order of their updates."""
        alarms = [self._compare(signal, row[signal.name]) for signal in SIGNALS if signal.name in row]
        return [alarm for alarm in alarms if alarm is not None]

    def _compare(self, signal: Signal, value: float) -> Alarm | None:
        window, patience = self._settings.window, self._settings.patience
        values = self._values.setdefault(signal.name, deque(maxlen=window + patience))
        values.append(value)
        if len(values) < window + patience:
            return None
        before, latest = list(values)[:window], median(list(values)[window:])
        usual = median(before)
        deviation = median(abs(value - usual) for value in before)
        spread = max(MAD_TO_SIGMA * deviation, signal.share * abs(usual), signal.least)
        distance = (latest - usual) / spread if spread else 0.0
        low, high = signal.falls and distance < -self._settings.limit, signal.rises and distance > self._settings.limit
        first = self._first.setdefault(signal.name, usual)
        gone = signal.name.endswith("/entropy") and latest < ENTROPY_LEFT * first
        if not (low or high or gone):
            return None
        values.clear()
        del self._first[signal.name]
        return Alarm(signal.name, latest, first if gone else usual)

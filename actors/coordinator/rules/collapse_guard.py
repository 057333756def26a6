"""Notices when a policy collapses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from microbudget_rl.actors.storage.documents import GuardState
from microbudget_rl.conf.schema import GuardConfig

MAD_TO_SIGMA = 1.4826
"""Ratio of a normal distribution's standard deviation to its median absolute deviation."""

LEAST_EFFECTIVE = 0.5
"""Lowest healthy `mismatch/ess`, our choice: below it, the importance weights waste half of a batch's tokens."""

FALLS = 1.0
"""Fall of the reward, in robust standard deviations, without which no other change is a collapse."""

NOTHING_SEEN = GuardState()


@dataclass(frozen=True)
class GuardedMetric:
    """A metric, and whether its fall or its rise is an alarm.

    share, least: lower bounds of its spread, relative to its median and absolute, so that after a calm window not every
    change is an alarm.
    floor: value below which the latest updates raise an alarm, whatever was usual.
    collapse: whether an alarm means that the policy collapses; if not, it is a warning only.
    """

    name: str
    falls: bool = True
    rises: bool = False
    share: float = 0.2
    least: float = 0.0
    floor: float | None = None
    collapse: bool = True


REWARD = GuardedMetric("reward/mean", least=0.02)

GUARDED = (
    GuardedMetric("response/mean_length", rises=True),
    GuardedMetric("reward/format", least=0.02),
    GuardedMetric("policy/kl_to_base", falls=False, rises=True, share=0.5, least=0.02),
    REWARD,
    GuardedMetric("mismatch/ess", falls=False, floor=LEAST_EFFECTIVE, collapse=False),
)
"""Entropy is not among them: it falls as fast in a run that solves its problems."""


@dataclass(frozen=True)
class Alarm:
    """One signal out of its band. value: median of the latest updates. usual: an earlier median, or the floor."""

    signal: str
    value: float
    usual: float
    collapse: bool = True

    def __str__(self) -> str:
        change = f"went from {self.usual:.3g} to" if self.collapse else f"is below {self.usual:.3g}:"
        return f"{self.signal} {change} {self.value:.3g}"


class Guard:
    """Compares the latest `patience` updates of each signal with the `window` before them: a pure state machine.

    Median and median absolute deviation let neither single outliers nor a steady drift, which is part of learning,
    raise an alarm. Nor does any change unless the reward falls: a policy that learns may quickly move far from the base
    model. After an alarm a signal's windows begin anew, so that a new level is reported once.
    """

    def __init__(self, settings: GuardConfig, state: GuardState = NOTHING_SEEN) -> None:
        self._settings = settings
        self._length = settings.window + settings.patience
        self.state = state

    def add_row(self, row: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that an update's row raises; rows come in the order of their updates."""
        values = {
            signal.name: [*self._earlier(signal), row[signal.name]][-self._length :]
            for signal in GUARDED
            if signal.name in row
        }
        # A copy: a checkpoint that is being written may have the state before. Its lists are replaced, not changed.
        self.state = GuardState(values=self.state.values | values)
        alarms = [alarm for signal in GUARDED if signal.name in row and (alarm := self._alarm(signal))]
        self.state.values.update((alarm.signal, []) for alarm in alarms)
        return alarms

    def _earlier(self, signal: GuardedMetric) -> list[float]:
        """Return a signal's values. Only the first alarm of one with a floor comes without a window before it."""
        known = [] if signal.floor is None else [signal.floor] * self._settings.window
        return self.state.values.get(signal.name, known)

    def _alarm(self, signal: GuardedMetric) -> Alarm | None:
        values, limit = self.state.values[signal.name], self._settings.limit
        if len(values) < self._length:
            return None
        usual, latest = self._medians(values)
        if signal.floor is not None:
            return Alarm(signal.name, latest, signal.floor, signal.collapse) if latest < signal.floor else None
        distance, reward_falls = self._distance(signal), self._distance(REWARD) < -FALLS
        out_of_band = (signal.falls and distance < -limit) or (signal.rises and distance > limit)
        return Alarm(signal.name, latest, usual) if out_of_band and reward_falls else None

    def _distance(self, signal: GuardedMetric) -> float:
        """Return by how many robust standard deviations the latest values differ; 0 while there are too few."""
        values = self.state.values.get(signal.name, [])
        if len(values) < self._length:
            return 0.0
        usual, latest = self._medians(values)
        deviation = median(abs(value - usual) for value in values[: self._settings.window])
        spread = max(MAD_TO_SIGMA * deviation, signal.share * abs(usual), signal.least)
        return (latest - usual) / spread if spread else 0.0

    def _medians(self, values: Sequence[float]) -> tuple[float, float]:
        """Return the usual value and the latest one."""
        return median(values[: self._settings.window]), median(values[self._settings.window :])

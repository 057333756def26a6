"""Notices when a policy collapses."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from microbudget_rl.actors.storage.documents import GuardState
from microbudget_rl.conf.schema import GuardConfig

MAD_TO_SIGMA = 1.4826
"""Ratio of a normal distribution's standard deviation to its median absolute deviation."""

ENTROPY_LEFT = 0.1
"""Fraction of the first window's entropy that means collapse, however slow. (The paper's worst model lost 92.5 %.)"""

LEAST_EFFECTIVE = 0.5
"""Lowest healthy `mismatch/ess`, our choice: below it, the importance weights waste half of a batch's tokens."""


NOTHING_SEEN = GuardState()


@dataclass(frozen=True)
class Signal:
    """A metric, and whether its fall or its rise is an alarm.

    share, least: lower bounds of its spread, relative to its median and absolute, so that after a calm window not every
    change is an alarm.
    floor: value below which the latest updates raise an alarm, whatever was usual.
    collapse: whether an alarm means that the policy collapses; if not, it is a warning only.
    excused: whether a fall is not an alarm while the policy succeeds (see `Success`).
    """

    name: str
    falls: bool = True
    rises: bool = False
    share: float = 0.2
    least: float = 0.0
    floor: float | None = None
    collapse: bool = True
    excused: bool = False


REWARD = Signal("reward/mean", least=0.02)

SIGNALS = (
    Signal("policy/entropy", excused=True),
    Signal("adapter_check/entropy", excused=True),
    Signal("response/mean_length", rises=True),
    REWARD,
    Signal("reward/format", least=0.02),
    Signal("policy/kl_to_base", falls=False, rises=True, share=0.5, least=0.02),
    Signal("mismatch/ess", falls=False, floor=LEAST_EFFECTIVE, collapse=False),
)


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


class Success:
    """Tells by the reward whether a policy has learned: a policy that knows the answers has little entropy left.

    It has learned if the latest reward is above the first window's and not below the best window's, each with a margin
    of the reward's least spread. A fall of entropy is then excused. It becomes an alarm once the reward falls, as long
    as most of the first window's entropy is missing.
    """

    def __init__(self, settings: GuardConfig, state: GuardState) -> None:
        self._window = settings.window
        self.rewards = deque(state.rewards, maxlen=settings.window + settings.patience)
        self.first, self.best = state.first_reward, state.best_reward

    def look(self, row: Mapping[str, float]) -> None:
        """Add an update's row. A row without a reward changes nothing."""
        if REWARD.name not in row:
            return
        self.rewards.append(row[REWARD.name])
        if len(self.rewards) == self.rewards.maxlen:
            usual, _ = _medians(self.rewards, self._window)
            self.first = usual if self.first is None else self.first
            self.best = usual if self.best is None else max(self.best, usual)

    @property
    def now(self) -> bool:
        """Whether the policy has learned, by the latest reward."""
        if self.first is None or self.best is None or len(self.rewards) < self._window + 1:
            return False
        _, latest = _medians(self.rewards, self._window)
        return latest >= max(self.first + _least_spread(self.first), self.best - _least_spread(self.best))


def _least_spread(reward: float) -> float:
    return max(REWARD.share * abs(reward), REWARD.least)


def _medians(values: Iterable[float], window: int) -> tuple[float, float]:
    series = list(values)
    return median(series[:window]), median(series[window:])


class Guard:
    """Compares the latest `patience` updates of each signal with the `window` before them: a pure state machine.

    Median and median absolute deviation let neither single outliers nor a steady drift, which is part of learning,
    raise an alarm. After an alarm a signal's windows begin anew, so that a new level is reported once.
    """

    def __init__(self, settings: GuardConfig, state: GuardState = NOTHING_SEEN) -> None:
        self._settings = settings
        self._values = {name: deque(values, maxlen=self._length) for name, values in state.values.items()}
        self._first = {**state.first}
        self._success = Success(settings, state)

    @property
    def state(self) -> GuardState:
        return GuardState(
            values={name: list(values) for name, values in self._values.items()},
            first=self._first,
            rewards=list(self._success.rewards),
            first_reward=self._success.first,
            best_reward=self._success.best,
        )

    @property
    def _length(self) -> int:
        return self._settings.window + self._settings.patience

    def look(self, row: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that an update's row raises; rows come in the order of their updates."""
        self._success.look(row)
        return [alarm for signal in SIGNALS if signal.name in row and (alarm := self._check(signal, row[signal.name]))]

    def _check(self, signal: Signal, value: float) -> Alarm | None:
        """Add a signal's next value. Only the first alarm of a signal with a floor comes without a window before it."""
        window = self._settings.window
        known = () if signal.floor is None else [signal.floor] * window
        values = self._values.setdefault(signal.name, deque(known, maxlen=self._length))
        values.append(value)
        if len(values) < self._length:
            return None
        usual, latest = _medians(values, window)
        if signal.floor is not None:
            alarm = Alarm(signal.name, latest, signal.floor, signal.collapse) if latest < signal.floor else None
        else:
            alarm = self._compare(signal, list(values)[:window], usual, latest)
        if alarm:
            values.clear()
            self._first.pop(signal.name, None)
        return alarm

    def _compare(self, signal: Signal, before: list[float], usual: float, latest: float) -> Alarm | None:
        deviation = median(abs(value - usual) for value in before)
        spread = max(MAD_TO_SIGMA * deviation, signal.share * abs(usual), signal.least)
        distance = (latest - usual) / spread if spread else 0.0
        low, high = signal.falls and distance < -self._settings.limit, signal.rises and distance > self._settings.limit
        first = self._first.setdefault(signal.name, usual)
        gone = signal.name.endswith("/entropy") and latest < ENTROPY_LEFT * first
        if not (low or high or gone) or (signal.excused and self._success.now):
            return None
        return Alarm(signal.name, latest, first if gone else usual)

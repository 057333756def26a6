"""The states of the learner, with the table of its transitions, and whether anything is left to learn."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum, auto

from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import Group
from microbudget_rl.conf.schema import Config

FRUITLESS_BATCHES = 4
"""Number of batches whose groups, all without any difference in reward, end the run."""


NOTHING_SEEN: Mapping[str, int] = {}


class LearnerState(Enum):
    """A state of the learner, as far as the coordinator knows.

    A call that is cancelled leaves the state as it is, so that each state holds from the start of a call to the next
    result.
    """

    STARTING = auto()
    """It loads or is restored. It has yet to publish the version that becomes the policy."""
    IN_STEP = auto()
    """Its weights are the policy's."""
    UPDATING = auto()
    """It computes the gradient of a batch. Its weights are still the policy's."""
    AHEAD = auto()
    """It takes or has taken the optimizer step. The engines do not serve the new version yet."""
    GONE = auto()
    """It has crashed, or is at a version that only a fresh process leads back from."""


STARTING, IN_STEP, UPDATING, AHEAD, GONE = LearnerState

TRANSITIONS = {
    (STARTING, IN_STEP): "new groups are sampled from the version that it has published",
    (STARTING, GONE): "it crashes while it is restored or publishes",
    (IN_STEP, UPDATING): "a batch is complete",
    (IN_STEP, STARTING): "the policy has collapsed: it is restored from a checkpoint",
    (IN_STEP, GONE): "it crashes in a check or while it saves, or the policy has collapsed before any checkpoint",
    (UPDATING, AHEAD): "the policy has passed its adapter check",
    (UPDATING, GONE): "it crashes in the gradient",
    (AHEAD, IN_STEP): "new groups are sampled from the new version",
    (AHEAD, GONE): "it crashes in the step",
    (GONE, STARTING): "a fresh process has taken its place",
}
"""The event of each transition. There are no others."""


class LearnerLifecycle:
    """Keeps the learner's state: a pure state machine."""

    def __init__(self) -> None:
        self.state = STARTING

    def move(self, state: LearnerState) -> None:
        """Enter another state. Raises ValueError for a transition that is not in the table."""
        if (self.state, state) not in TRANSITIONS:
            raise ValueError(f"the learner cannot go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def at_policy(self) -> bool:
        """Whether its weights are the policy's, so that it can save and compare them."""
        return self.state in (IN_STEP, UPDATING)

    @property
    def making_update(self) -> bool:
        """Whether a batch is taken whose version is not the policy yet."""
        return self.state in (UPDATING, AHEAD)


class FruitlessStreak:
    """Counts consecutive groups from which nothing can be learned.

    end_reason: why the training is over after a streak of FRUITLESS_BATCHES, if it has led somewhere; empty before.
    frozen: whether problems are left that it never solves.
    """

    def __init__(self, config: Config, state: Mapping[str, int] = NOTHING_SEEN) -> None:
        # Unless the reward weighs answers, right ones do not mean that anything is learned.
        self._weighs_answers = config.reward.weighs_answers
        self.end_reason, self.frozen = "", False
        self._limit = FRUITLESS_BATCHES * config.learner.problems_per_update
        self._settled = Counter(state)
        self._waiting: dict[int, str] = {}  # groups that a resumed run makes again

    @property
    def state(self) -> dict[str, int]:
        return dict(self._settled)

    def settle(self, groups: Iterable[Group]) -> None:
        """Note that a batch has taken groups."""
        self._settled.update(self._waiting.pop(group.index) for group in groups if group.index in self._waiting)

    def add(self, group: Group, learned: bool, settled: bool = False) -> None:
        """Count a verified group. learned: whether the run has trained on a difference in reward. settled: whether no
        batch will take it.

        Raises Halted at the end of a streak, unless all its verified answers were right or, in a run that has learned,
        those of some groups, and no group failed.
        """
        if self.end_reason or group.learnable:
            self._settled.clear()
            self._waiting.clear()
            return
        right = not group.failed and all(r.parts["accuracy"] == 1.0 for r in group.rewards if not r.masked)
        self._waiting[group.index] = "right" if right else "failed" if group.failed or group.complaints else "wrong"
        if settled:
            self.settle([group])
        kinds = self._settled + Counter(self._waiting.values())
        length, solved = kinds.total(), kinds["right"] if self._weighs_answers else 0
        if length < self._limit:
            return
        if solved == length:
            self.end_reason = "every sample of the last groups is right: nothing is left to learn"
            return
        if solved and learned and not kinds["failed"]:
            counts = f"of the last {length} problems {solved} were always solved, and the others never"
            self.end_reason, self.frozen = f"nothing more can be learned: {counts}", True
            return
        cause = "all samples of a problem had the same reward"
        if group.failed:
            cause = "no answer could be verified"
        elif not group.zero_variance:
            cause = "rewards differed only in responses that were cut off, which algorithm.mask_truncated leaves out"
        if group.complaints:
            cause += f", and the reward function {'; '.join(map(str, group.complaints.values()))}"
        raise Halted(
            f"nothing can be learned: in the last {self._limit} groups {cause}; one problem is "
            f"{group.problem.prompt!r}, its reference answer {group.problem.gold!r}, "
            f"a response {group.samples[0].text!r}"
        )

"""The states of the learner, and the table of its transitions."""

from enum import Enum, auto


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

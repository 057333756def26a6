"""The trackers that a run has chosen, of those that are installed."""

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from actors.protocols import Tracker
from actors.tracking.identity import Identity
from actors.tracking.tensorboard_tracker import TensorBoardTracker
from actors.tracking.tracking import Tracking
from actors.tracking.wandb_tracker import WandbTracker
from conf.errors import BadInput

WANDB = "wandb~=0.31"
"""Package of the tracker that does not come with the project, as its extra `trackers` has it."""


def check_installed(names: Sequence[str]) -> None:
    """Raise BadInput for a tracker whose package is not there."""
    if "wandb" in names and find_spec("wandb") is None:
        raise BadInput(
            f"run.trackers=wandb: the package wandb is not installed; install it by {sys.executable} -m pip"
            f" install '{WANDB}', or leave wandb out"
        )


def make_tracking(names: Sequence[str], identity: Identity) -> Tracking:
    """Return the trackers of these names, none of which has begun."""
    kinds: dict[str, Callable[[Identity], Tracker]] = {"tensorboard": TensorBoardTracker, "wandb": WandbTracker}
    return Tracking({name: kinds[name](identity) for name in names})

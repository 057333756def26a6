"""The trackers that a run has chosen, of those that are installed."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from actors.protocols import Tracker
from actors.tracking.identity import Identity
from actors.tracking.tensorboard_tracker import TensorBoardTracker
from actors.tracking.tracking import Tracking
from actors.tracking.wandb_tracker import WandbTracker
from conf.errors import BadInput

REQUIREMENTS = {"wandb": "wandb~=0.31"}
"""Packages of those trackers that do not come with the project, as its extra `trackers` has them."""


def check_installed(names: Sequence[str]) -> None:
    """Raise BadInput for a tracker whose package is not there."""
    for name in names:
        if name in REQUIREMENTS and find_spec(name) is None:
            raise BadInput(
                f"run.trackers={name}: the package {name} is not installed; install it by {sys.executable} -m pip"
                f" install '{REQUIREMENTS[name]}', or leave {name} out"
            )


def make_tracking(names: Sequence[str], identity: Identity) -> Tracking:
    """Return the trackers of these names, none of which has begun."""
    return Tracking({name: _make(name, identity) for name in names})


def _make(name: str, identity: Identity) -> Tracker:
    match name:
        case "tensorboard":
            return TensorBoardTracker(identity.folder / "tensorboard")
        case "wandb":
            return WandbTracker(identity)
    raise ValueError(name)

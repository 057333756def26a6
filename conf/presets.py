"""The values that `algorithm.preset` and `reward.preset` stand for."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Return what each preset of the section `algorithm` sets: all its keys but `preset`."""
    return yaml.safe_load((Path(__file__).parent / "algorithms.yaml").read_text("utf-8"))


@cache
def reward_presets() -> dict[str, dict[str, Any]]:
    """Return what each preset of the section `reward` sets: the keys accuracy to after_thinking."""
    return yaml.safe_load((Path(__file__).parent / "rewards.yaml").read_text("utf-8"))

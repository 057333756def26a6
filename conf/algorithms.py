"""Presets of the sections `algorithm` and `reward`, and combinations of the former that cannot work."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from conf.errors import BadInput
from conf.schema import AlgorithmConfig


@cache
def presets() -> dict[str, dict[str, Any]]:
    """What each preset sets: all keys of AlgorithmConfig but `preset`."""
    return yaml.safe_load((Path(__file__).parent / "algorithms.yaml").read_text())


@cache
def reward_presets() -> dict[str, dict[str, Any]]:
    """What each preset of the section `reward` sets: the keys accuracy to after_thinking."""
    return yaml.safe_load((Path(__file__).parent / "rewards.yaml").read_text())


def check_algorithm(algorithm: AlgorithmConfig) -> None:
    """Raise BadInput for a setting that could not act beside the others, or lacks one that it needs."""
    if not algorithm.ratio_acts:
        _refuse_idle_ratio(algorithm)
    elif algorithm.clip_high is None or (algorithm.clip_low is None and algorithm.surrogate == "clip"):
        key = "clip_high" if algorithm.clip_high is None else "clip_low"
        raise BadInput(
            f"algorithm.{key}=null: with algorithm.mismatch={algorithm.mismatch} and algorithm.steps_per_batch="
            f"{algorithm.steps_per_batch} the ratio moves away from 1 and nothing would bound it; set it, to 0.2 say"
        )
    if algorithm.dual_clip is not None and algorithm.surrogate == "cispo":
        raise BadInput(
            f"algorithm.dual_clip={algorithm.dual_clip}: algorithm.surrogate=cispo bounds its weight on both sides of"
            " zero advantage already; set it to null"
        )


def _refuse_idle_ratio(algorithm: AlgorithmConfig) -> None:
    idle = {"surrogate": "clip", "ratio": "token", "clip_low": None, "clip_high": None, "dual_clip": None}
    for key, value in idle.items():
        asked = getattr(algorithm, key)
        if asked != value:
            raise BadInput(
                f"algorithm.{key}={asked}: with one step per batch and algorithm.mismatch={algorithm.mismatch} old and"
                " new policy are the same, the ratio is 1 and this cannot act; set algorithm.mismatch=bypass or"
                f" algorithm.steps_per_batch=2, or {key} to {'null' if value is None else value}"
            )

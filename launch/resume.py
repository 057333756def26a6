"""What to do with a run folder that exists already."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from actors.durable import replace_text
from conf.errors import BadInput
from conf.load import dump
from conf.schema import Config
from launch.machine import Machine
from launch.result import finished
from rewards.problems import ProblemSet

MAY_CHANGE = (
    *("budget", "checkpoint", "dashboard", "device", "plan", "run.overwrite"),
    *("learner.ranks", "reward.workers", "data.hub_timeout_s"),
)
"""Settings that a run may be resumed with another value of: they touch neither model, data nor algorithm. (A schedule
follows the share of the budget, whatever the budget.)"""


def open_folder(config: Config) -> Path:
    """The folder of a run that may start or go on; BadInput if it is finished or was begun with other settings."""
    folder = Path(config.run.folder) / config.run.name
    if config.run.overwrite or not (folder / "config.yaml").exists():
        return folder
    if (summary := finished(folder)) is not None:
        raise BadInput(
            f"run {config.run.name!r} in {folder} is finished ({summary['status']}): "
            f"give run.overwrite=true to start it anew, "
            f"or run.name=OTHER to keep it"
        )
    spent = json.loads((folder / "spent.json").read_text())["spent_s"] if (folder / "spent.json").exists() else 0.0
    if spent >= config.budget.seconds:
        raise BadInput(
            f"run {config.run.name!r} has spent {spent / 60:.1f} minutes, all of its budget: give it more, as "
            f"budget.minutes={spent / 60 + 10:.0f}, or start it anew with run.overwrite=true"
        )
    before = flatten(yaml.safe_load((folder / "config.yaml").read_text()))
    now = flatten(yaml.safe_load(dump(config)))
    changed = sorted(
        key for key in before.keys() | now.keys() if before.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)
    )
    if changed:
        key = changed[0]
        raise BadInput(
            f"run {config.run.name!r} was begun with {key}={before.get(key)}, not {now.get(key)}: resume it with the "
            f"same settings, or give run.name=OTHER or run.overwrite=true"
            + (f" (also changed: {', '.join(changed[1:])})" if changed[1:] else "")
        )
    return folder


def settle(config: Config, machine: Machine) -> None:
    """Put the dtype a run began with, or else the faster one here, in the place of model.dtype=auto."""
    begun = Path(config.run.folder) / config.run.name / "config.yaml"
    if config.model.dtype != "auto":
        return
    resumes = begun.exists() and not config.run.overwrite
    config.model.dtype = yaml.safe_load(begun.read_text())["model"]["dtype"] if resumes else machine.dtype


def claim(config: Config, folder: Path, problems: ProblemSet) -> None:
    """Make the folder this process's own for as long as it lives, and write down what the run is.

    Raises BadInput if another process holds it, if it would be overwritten without being a run's folder, or if an
    unfinished run in it was begun with other problems.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(
            f"run {config.run.name!r} in {folder} is at work in another process: wait, or give run.name=OTHER"
        ) from None
    if config.run.overwrite:
        if any(folder.iterdir()) and not (folder / "config.yaml").exists():
            raise BadInput(
                f"{folder} is not the folder of a run: run.overwrite=true would delete it; give run.name=OTHER"
            )
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    digest = hashlib.blake2b(
        repr([problem.id for problem in (*problems.train, *problems.heldout)]).encode()
    ).hexdigest()
    known = folder / "problems.digest"
    if known.exists() and known.read_text() != digest:
        raise BadInput(
            f"run {config.run.name!r} was begun with other problems than {config.data.source} has now: restore the "
            f"data, or give run.name=OTHER or run.overwrite=true"
        )
    replace_text(known, digest)
    replace_text(folder / "config.yaml", dump(config))
    (folder / "summary.json").unlink(missing_ok=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""What to do with a run folder that exists already."""

import errno
import fcntl
import os
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from actors.storage.files import replace_text
from conf.errors import BadInput
from conf.load import dump
from conf.schema import MAY_CHANGE, Config
from launch.plan.machine import Machine
from launch.result import finished
from launch.session.failure import spent
from launch.session.ray_session import clear_session

if TYPE_CHECKING:
    from actors.messages import ProblemSet

EVALUATION = "evaluation"
"""Name of the folder in a run's folder that belongs to evaluate.py, which may have been there first."""

PROBLEMS = "problems.digest"
"""In a run's folder: which problems it has."""

UNRECORDED = ("adapter", "benchmarks", "dashboard", "limit", "n", "plan", "run.folder", "run.overwrite", "simulate")
"""Settings whose change says nothing about the run."""


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
    if (seconds := spent(folder)) >= config.budget.seconds:
        raise BadInput(
            f"run {config.run.name!r} has spent {seconds / 60:.1f} minutes, all of its budget: give it more, as "
            f"budget.minutes={seconds / 60 + 10:.0f}, or start it anew with run.overwrite=true"
        )
    check_settings(config, folder)
    return folder


def check_settings(config: Config, folder: Path) -> None:
    """Raise BadInput if the run in a folder was begun with other settings, but for those that may change."""
    refused = {key: values for key, values in changes(config, folder).items() if not among(key, MAY_CHANGE)}
    if refused:
        (key, (before, now)), *others = refused.items()
        raise BadInput(
            f"run {config.run.name!r} was begun with {key}={before}, not {now}: resume it with the "
            f"same settings, or give run.name=OTHER or run.overwrite=true"
            + (f" (also changed: {', '.join(key for key, _ in others)})" if others else "")
        )


def settle(config: Config, machine: Machine) -> None:
    """Put the dtype a run began with, or else the machine's faster one, in the place of model.dtype=auto.

    A machine that is not this one has no run to resume here.
    """
    begun = Path(config.run.folder) / config.run.name / "config.yaml"
    if config.model.dtype != "auto":
        return
    resumes = machine.present and begun.exists() and not config.run.overwrite
    config.model.dtype = yaml.safe_load(begun.read_text())["model"]["dtype"] if resumes else machine.dtype


def changes(config: Config, folder: Path) -> dict[str, tuple[Any, Any]]:
    """Settings that differ from those the run in a folder last had: by key, the value then and now."""
    if not (folder / "config.yaml").exists():
        return {}
    before = flatten(yaml.safe_load((folder / "config.yaml").read_text()))
    now = flatten(yaml.safe_load(dump(config)))
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return {key: (before.get(key), now.get(key)) for key in keys}


def among(key: str, names: tuple[str, ...]) -> bool:
    """Whether a key is one of the names or in a section of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


@cache
def hold(folder: Path, what: str) -> None:
    """Make a folder this process's own for as long as it lives, once, and clean up after the process before.

    Raises BadInput if another process holds it, or if it cannot be written to. what: that is done in it.
    """
    if lock(folder) is None:
        raise BadInput(f"{what} in {folder} is at work in another process: wait, or give run.name=OTHER")
    clear_session(folder)


def lock(folder: Path) -> int | None:
    """Make a folder, if there is none, and take it: a descriptor that no other process is given while it is open; None
    if one has it. Raises BadInput if the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise BadInput(
            f"the folder {folder} cannot be made or written to ({error.strerror}): make that possible, or give another"
            " run.folder"
        ) from error
    return descriptor


def empty(folder: Path, last: str) -> None:
    """Delete what is in a folder; last the file that says of what it is, should this process die meanwhile."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def claim(config: Config, folder: Path, problems: "ProblemSet") -> list[str]:
    """Make the folder this process's own for as long as it lives, clean up after the process before, and write down
    what the run is; the settings that a resumed run changes, as `key=before → now`.

    Raises BadInput if another process holds it, if it would be overwritten without being a run's folder, or if an
    unfinished run in it was begun with other problems.
    """
    hold(folder, f"run {config.run.name!r}")
    if config.run.overwrite:
        if not (folder / "config.yaml").exists() and any(path.name != EVALUATION for path in folder.iterdir()):
            raise BadInput(
                f"{folder} is not the folder of a run: run.overwrite=true would delete it; give run.name=OTHER"
            )
        if (folder / "config.yaml").exists():
            empty(folder, last="config.yaml")
    known = folder / PROBLEMS
    if known.exists() and known.read_text() != problems.digest:
        raise BadInput(
            f"run {config.run.name!r} was begun with other problems than {config.data.source} has now: restore the "
            f"data, or give run.name=OTHER or run.overwrite=true"
        )
    changed = [
        f"{key}={before} → {now}"
        for key, (before, now) in changes(config, folder).items()
        if not among(key, UNRECORDED)
    ]
    replace_text(known, problems.digest)
    replace_text(folder / "config.yaml", dump(config))
    (folder / "summary.json").unlink(missing_ok=True)
    return changed


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""Checks a run's remote checkpoints before it starts, and completes them after its end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from microbudget_rl.actors.clock import in_thread
from microbudget_rl.actors.storage.files import lock
from microbudget_rl.actors.storage.folders import check_free, drop_leftovers
from microbudget_rl.actors.storage.remote import Remote
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema import Config

ANSWER_S, ENDING_S = 30.0, 600.0
"""Seconds for the check that a remote can be read and written, and for the last copy, after the end of the budget: the
machine may cost by the minute."""

T = TypeVar("T")


def check_remote(config: Config) -> None:
    """Raise BadInput if remote checkpoints cannot be written, or would mix with another run or with other files."""
    url, name = config.checkpoint.remote, config.run.name
    if not url:
        return
    setting, run = f"checkpoint.remote={url}", RunRecord(config.run.path)
    remote = _tried(setting, lambda: Remote(url, name))
    here, there = run.path.resolve(), remote.folder
    if there is not None and (here.is_relative_to(there) or there.is_relative_to(here)):
        raise BadInput(f"{setting}: {there} and the run's folder {here} overlap; give another URL")
    state = _tried(setting, remote.try_out)
    if state and not config.run.overwrite and state.identity != (run.identity() if run.exists else None):
        raise BadInput(
            f"{setting}: has another run {name!r}, which would be lost; continue that one by run.restore={url}, or give"
            " run.name=OTHER or another URL"
        )


def bring_back(config: Config) -> str:
    """Restore the run's folder unless it is here. Return a sentence on it. Raises BadInput for none, or another's."""
    url, name = config.run.restore, config.run.name
    setting, folder = f"run.restore={url}", config.run.path
    run, remote = RunRecord(folder), _tried(setting, lambda: Remote(url, name))
    state = _tried(setting, remote.state)
    if run.exists:
        if state and state.identity != run.identity():
            raise BadInput(f"{setting}: has another run {name!r} than {folder}; move that away, or omit run.restore")
        return f"{folder} is here: the run continues from its own checkpoints"
    if not state and url.rstrip("/") == config.checkpoint.remote.rstrip("/"):
        return f"{remote.url} has no run yet: a new one begins"
    check_free(folder, "run")
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = lock(folder.parent, wait=True)
    assert descriptor is not None  # since it waits
    try:
        drop_leftovers(folder)
        _tried(setting, lambda: remote.get(folder), None)
    finally:
        os.close(descriptor)
    return f"Restored {folder} from {remote.url}"


def put_ending(config: Config, folder: Path) -> str:
    """Copy a run's last files and its report. Return a sentence on the result; an error does not fail the run."""
    url, name = config.checkpoint.remote.rstrip("/"), config.run.name
    there = f"{url}/{name}"
    try:
        in_thread(ENDING_S, lambda: Remote(url, name).put(RunRecord(folder)))
    except Exception as error:
        return f"Remote checkpoints: the last upload to {there} failed ({in_brief(error)}); earlier ones are complete"
    return f"Remote checkpoints: {there}"


def _tried(setting: str, work: Callable[[], T], seconds: float | None = ANSWER_S) -> T:
    """Return the result of a library's work. Any error, and a wait without an end, becomes BadInput."""
    try:
        return in_thread(seconds, work)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{setting}: cannot be used ({in_brief(error)}); make that possible, or leave it out") from None

"""Remote checkpoints of a run: looked at before it starts, and completed after its end."""

import os
from pathlib import Path
from typing import Any

from actors.runtime.clock import in_thread
from actors.storage.files import lock
from actors.storage.folders import drop_leftovers
from actors.storage.layout import RUN
from actors.storage.putter import SILENT_S
from actors.storage.remote import Remote
from actors.storage.run_record import RunRecord
from conf.errors import BadInput, in_brief
from conf.schema import Config

ANSWER_S = 30.0
"""Seconds in which a remote has to show that it can be read and written."""

ENDING_S = 600.0
"""Seconds that the last copy may take, after the end of the budget; the machine may cost by the minute."""


def check_remote(config: Config) -> None:
    """Raise BadInput if remote checkpoints cannot be written, or would mix with another run or with other files."""
    url, name = config.checkpoint.mirror, config.run.name
    if not url:
        return
    run, remote = RunRecord(Path(config.run.folder) / name), _remote(f"checkpoint.mirror={url}", url, name)
    here, there = run.path.resolve(), remote.folder
    if there is not None and (here.is_relative_to(there) or there.is_relative_to(here)):
        raise BadInput(f"checkpoint.mirror={url}: {there} and the run's folder {here} are one; give another URL")
    state = _tried(f"checkpoint.mirror={url}", remote, remote.try_out)
    known = run.identity() if run.exists else None
    if state and not config.run.overwrite and state.identity != known:
        raise BadInput(
            f"checkpoint.mirror={url}: has another run {name!r}, which would be lost; go on with that one by"
            f" run.restore={url}, or give run.name=OTHER or another URL"
        )


def bring_back(config: Config) -> str:
    """Make the run's folder from what `run.restore` names, unless it is here. Return what was done.

    Raises BadInput if there is no such run, or if the folder is that of another.
    """
    url, name = config.run.restore, config.run.name
    folder = Path(config.run.folder) / name
    run, remote = RunRecord(folder), _remote(f"run.restore={url}", url, name)
    state = _tried(f"run.restore={url}", remote, remote.state)
    if run.exists:
        if state and state.identity != run.identity():
            raise BadInput(
                f"run.restore={url}: has another run {name!r} than {folder}; move that away, or leave it out"
            )
        return f"{folder} is here: it goes on from its own checkpoints"
    if state is None and url.rstrip("/") == config.checkpoint.mirror.rstrip("/"):
        return f"{remote.url} has no run yet: it begins"
    if folder.is_symlink() or (folder.exists() and any(folder.iterdir())):
        raise BadInput(f"{folder} is not the folder of a run: move it away, to have it restored from {url}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = lock(folder.parent, wait=True)
    assert descriptor is not None  # since it waits
    try:
        drop_leftovers(folder, RUN)
        _tried(f"run.restore={url}", remote, lambda: remote.get(folder), None)
    finally:
        os.close(descriptor)
    return f"Restored {folder} from {remote.url}"


def put_ending(config: Config, folder: Path) -> str:
    """Put what there is at the end of a run, the report with it. Return what came of it: no run fails for that."""
    url, name = config.checkpoint.mirror, config.run.name
    try:
        remote = in_thread(ANSWER_S, lambda: Remote(url, name))
        in_thread(ENDING_S, lambda: remote.put(RunRecord(folder)), SILENT_S, lambda: remote.moved)
    except Exception as error:
        return (
            f"Remote checkpoints: the end of the run is not in {url.rstrip('/')}/{name} ({in_brief(error)}); what was"
            " put before is whole"
        )
    return f"Remote checkpoints: {remote.url}"


def _remote(what: str, url: str, name: str) -> Remote:
    """Return a run's place under a URL. Some libraries connect at once, and may raise anything or wait for ever."""
    try:
        return in_thread(ANSWER_S, lambda: Remote(url, name))
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{what}: cannot be used ({in_brief(error)}); make that possible, or leave it out") from None


def _tried(what: str, remote: Remote, work: Any, seconds: float | None = ANSWER_S) -> Any:
    """Return the result of work of a library that may raise anything, or wait for ever: as BadInput."""
    try:
        return in_thread(seconds, work, SILENT_S, lambda: remote.moved)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{what}: cannot be used ({in_brief(error)}); make that possible, or leave it out") from None

"""Remote checkpoints of a run: looked at before it starts, put beside it by a thread, and completed after its end."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.runtime.clock import in_thread
from actors.storage.remote import Remote
from actors.storage.run_record import RunRecord
from conf.errors import BadInput, in_brief
from conf.schema import Config

ANSWER_S = 30.0
"""Seconds in which a remote has to show that it can be read and written."""

SILENT_S = 60.0
"""Seconds without a byte moved after which a remote is taken not to answer."""

ENDING_S = 600.0
"""Seconds that the last copy may take, after the end of the budget; the machine may cost by the minute."""

LOOK_S = 2.0
"""Seconds between two looks for a new checkpoint."""

EVERY_S = 300.0
"""Seconds after which all else is put without one."""

PAUSE_S = 15.0
LONGEST_PAUSE_S = 600.0
"""Before what has failed is tried again, doubled each time."""


def check_remote(config: Config) -> None:
    """Raise BadInput if remote checkpoints cannot be written, or would mix with another run or with other files."""
    url, name = config.checkpoint.mirror, config.run.name
    if not url:
        return
    run, remote = RunRecord(Path(config.run.folder) / name), Remote(url, name)
    here, there = run.path.resolve(), remote.folder
    if there is not None and (here.is_relative_to(there) or there.is_relative_to(here)):
        raise BadInput(f"checkpoint.mirror={url}: {there} and the run's folder {here} are one; give another URL")
    state = _tried(f"checkpoint.mirror={url}", remote, remote.try_out)
    known = run.identity() if run.exists else None
    if state and not config.run.overwrite and state["identity"] != known:
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
    run, remote = RunRecord(folder), Remote(url, name)
    state = _tried(f"run.restore={url}", remote, remote.state)
    if run.exists:
        if state and state["identity"] != run.identity():
            raise BadInput(
                f"run.restore={url}: has another run {name!r} than {folder}; move that away, or leave it out"
            )
        return f"{folder} is here: it goes on from its own checkpoints"
    if state is None and url.rstrip("/") == config.checkpoint.mirror.rstrip("/"):
        return f"{remote.url} has no run yet: it begins"
    if folder.is_symlink() or (folder.exists() and any(folder.iterdir())):
        raise BadInput(f"{folder} is not the folder of a run: move it away, to have it restored from {url}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tried(f"run.restore={url}", remote, lambda: remote.get(folder), None)
    return f"Restored {folder} from {remote.url}"


def put_ending(config: Config, folder: Path) -> str:
    """Put what there is at the end of a run, the report with it. Return what came of it: no run fails for that."""
    remote = Remote(config.checkpoint.mirror, config.run.name)
    try:
        in_thread(ENDING_S, lambda: remote.put(RunRecord(folder)), SILENT_S, lambda: remote.moved)
    except Exception as error:
        return (
            f"Remote checkpoints: the end of the run is not in {remote.url} ({in_brief(error)}); what was put before is"
            " whole"
        )
    return f"Remote checkpoints: {remote.url}"


def _tried(what: str, remote: Remote, work: Any, seconds: float | None = ANSWER_S) -> Any:
    """Return the result of work of a library that may raise anything, or wait for ever: as BadInput."""
    try:
        return in_thread(seconds, work, SILENT_S, lambda: remote.moved)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{what}: cannot be used ({in_brief(error)}); make that possible, or leave it out") from None


@dataclass(frozen=True)
class Puts:
    """What has happened since the last look. news: that putting began to fail, or is well again; empty if neither."""

    copies: int
    failures: int
    bytes: int
    news: str


class Putter:
    """The thread that puts a run, at each checkpoint, and now and then without one. Nothing that happens there stops
    the run, which never waits for it.
    """

    def __init__(self, config: Config, run: RunRecord) -> None:
        self._run, self._remote = run, Remote(config.checkpoint.mirror, config.run.name)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._copies = self._failures = self._seen = 0
        self._fault, self._said = "", ""
        self._busy = self._silent = False
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="remote checkpoints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._ended.set()

    def puts(self) -> Puts:
        """Return what has happened since the last call. A remote that does not answer is one failure."""
        with self._lock:
            moved, self._seen = self._remote.moved - self._seen, self._remote.moved
            if moved or not self._busy:
                self._moved_at, self._silent = time.monotonic(), False
            elif not self._silent and time.monotonic() > self._moved_at + SILENT_S:
                self._silent, self._fault = True, f"no answer within {SILENT_S:g} s"
                self._failures += 1
            news = {
                (True, False): f"remote checkpoints fail, and are tried again: {self._fault}",
                (False, True): "remote checkpoints work again",
            }.get((bool(self._fault), bool(self._said)), "")
            found = Puts(self._copies, self._failures, moved, news)
            self._copies = self._failures = 0
            self._said = self._fault
        return found

    def _work(self) -> None:
        pause, done, latest = PAUSE_S, -EVERY_S, None
        while not self._ended.wait(LOOK_S):
            newest = self._run.checkpoints.latest
            if newest == latest and time.monotonic() < done + EVERY_S:
                continue
            self._note(busy=True)
            try:
                self._remote.put(self._run)
            except Exception as error:  # the libraries behind a URL may raise anything; the run goes on
                self._note(busy=False, fault=in_brief(error), failures=1)
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._note(busy=False, copies=1)
                pause, done, latest = PAUSE_S, time.monotonic(), newest

    def _note(self, busy: bool, fault: str = "", copies: int = 0, failures: int = 0) -> None:
        with self._lock:
            self._busy, self._moved_at = busy, time.monotonic()
            self._fault = self._fault if busy else fault
            self._copies += copies
            self._failures += failures

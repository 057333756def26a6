"""Ray's session folders: hundreds of megabytes of logs each, which Ray itself never deletes."""

import contextlib
import shutil
from pathlib import Path

import psutil

from actors.durable import replace_text
from actors.shared_memory import delete_orphans

NOTE = "ray-session"

SERVERS = ("raylet", "gcs_server")
"""Ray's processes that all others of a session follow into death."""


def note_session(run: Path, session: Path) -> None:
    """Write into a run's folder which session it has started."""
    replace_text(run / NOTE, str(session))


def clear_session(run: Path) -> None:
    """End what is left of the run's last session, delete its folder and forget it. For the run's only process."""
    note = run / NOTE
    if not note.exists():
        return
    session = Path(note.read_text())
    if session.name.startswith("session_") and session.parent.name == "ray":
        for process in psutil.process_iter(["name", "cmdline"]):
            mine = any(str(session) in argument for argument in process.info["cmdline"] or ())
            if mine and process.info["name"] in SERVERS:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        delete_orphans(session, also_of_the_living=True)
        shutil.rmtree(session, ignore_errors=True)
    note.unlink()

"""Shared memory that vLLM's processes leave behind: files in /dev/shm, which hold memory until they are deleted.

Python's resource tracker would delete them, but it is killed with the actor's process group, at times too early. So
their names are kept in the folder of the Ray session.
"""

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

from actors.storage.files import replace_text

SEGMENT = re.compile(r"(/dev/shm/psm_\w+)$", re.MULTILINE)
"""A file of Python's multiprocessing in a table of mappings. Names are random: whoever maps one belongs to it."""


def segments_of(pids: Iterable[int | str]) -> set[Path]:
    """Return the files that these processes (ids, or `self`) map; none for a process that is gone."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.update(map(Path, SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text())))
    return found


def delete(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def record_segments(session: Path, pid: int, files: Iterable[Path]) -> None:
    """Write down, in the session's folder, the files that a process and its children share."""
    folder = session / "shared-memory"
    folder.mkdir(exist_ok=True)
    replace_text(folder / str(pid), json.dumps(sorted(map(str, files))))


def delete_orphans(session: Path, also_of_the_living: bool = False) -> None:
    """Delete the recorded files of processes that are gone."""
    for record in (session / "shared-memory").glob("[0-9]*"):
        if also_of_the_living or not psutil.pid_exists(int(record.name)):
            delete(map(Path, json.loads(record.read_text())))
            record.unlink()

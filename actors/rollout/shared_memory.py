"""Shared memory that vLLM's processes leave behind: files in /dev/shm, memory until they are deleted.

Python's resource tracker would delete them, but is killed with the process group of the actor, at times before the
processes themselves can. So their names are kept in the folder of the Ray session.
"""

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

from actors.storage.files import replace_text

SEGMENT = re.compile(r"(/dev/shm/psm_\w+)$", re.MULTILINE)
"""Files of Python's multiprocessing in a table of mappings. Names are random: whoever maps one belongs to it."""


def segments(pids: Iterable[int | str]) -> set[Path]:
    """Files that these processes (ids, or `self`) map; none of a process that is gone."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.update(map(Path, SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text())))
    return found


def delete(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def note(session: Path, pid: int, files: Iterable[Path]) -> None:
    """Keep the names of the files that a process and its children share."""
    folder = session / "shared-memory"
    folder.mkdir(exist_ok=True)
    replace_text(folder / str(pid), json.dumps(sorted(map(str, files))))


def delete_orphans(session: Path, also_of_the_living: bool = False) -> None:
    """Delete what processes that are gone have noted."""
    for noted in (session / "shared-memory").glob("[0-9]*"):
        if also_of_the_living or not psutil.pid_exists(int(noted.name)):
            delete(map(Path, json.loads(noted.read_text())))
            noted.unlink()

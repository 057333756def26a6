"""Shared memory that vLLM's processes leave behind: files in /dev/shm, memory until they are deleted.

Python's resource tracker would delete them, but is killed with the process group of the actor.
"""

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

SEGMENT = re.compile(r"(/dev/shm/(?:psm_|sem\.mp-)\S+)$", re.MULTILINE)
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

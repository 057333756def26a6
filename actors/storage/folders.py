"""The only code that deletes folders. It deletes only files that this project has written.

A folder is ours if it has the mark that we write first, and a file in it is ours if a `Layout` knows its name. A file
that no layout knows is somebody else's and is never deleted. Links are never followed.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.storage.files import replace_text
from conf.errors import BadInput
from conf.load import MARK as MARK

TEMPORARY = re.compile(r"^\.(.+?)(\.[0-9a-f]{8})?\.tmp$")
"""Name of a file or folder that is being written: the final name, with eight digits if two could be written at once."""


@dataclass(frozen=True)
class Layout:
    """The files that we write into a kind of folder. names: matches their paths within the folder."""

    kind: str
    names: re.Pattern[str]

    def knows(self, path: str) -> bool:
        """Whether a path is one of our files, finished or being written. A path out of the folder is not."""
        parts = path.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            return False
        whole = "/".join(TEMPORARY.sub(r"\1", part) for part in parts)
        return MARK in (path, whole) or self.names.fullmatch(whole) is not None


def mark(folder: Path, kind: str, **facts: Any) -> None:
    """Mark a folder as ours. facts: further entries of the mark."""
    replace_text(folder / MARK, json.dumps({"kind": kind, **facts}))


def read_mark(folder: Path) -> dict[str, Any]:
    """Return the mark of a folder; empty if there is none that can be read."""
    try:
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_marked(folder: Path, layout: Layout) -> bool:
    """Whether we have made a folder of this kind."""
    return read_mark(folder).get("kind") == layout.kind


def foreign(folder: Path, layout: Layout) -> Path | None:
    """Return the first path in a folder that is not ours, or its own if it is not a folder; None if all is ours."""
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        return folder
    files, _ = _contents(folder)
    return next((file for file in sorted(files) if not layout.knows(file.relative_to(folder).as_posix())), None)


def discard(folder: Path, layout: Layout) -> Path | None:
    """Delete a folder. If something in it is not ours, delete nothing and return the first such path."""
    if (other := empty(folder, layout)) is None and folder.exists():
        folder.rmdir()
    return other


def empty(folder: Path, layout: Layout, kept: str = "") -> Path | None:
    """Delete the content of a folder, as `discard` does: the mark last, in case this process is killed meanwhile.

    kept: a file that stays.
    """
    if (other := foreign(folder, layout)) is not None:
        return other
    files, folders = _contents(folder)
    for file in sorted(files, key=lambda file: file == folder / MARK):
        if file != folder / kept:
            file.unlink(missing_ok=True)
    for inner in folders[:-1]:
        inner.rmdir()
    return None


def _contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return all files in a folder, links among them, and all folders, each after those in it."""
    files, folders = list[Path](), list[Path]()
    for place, inner, names in os.walk(folder, topdown=False):
        here = Path(place)
        files += [here / name for name in names] + [here / name for name in inner if (here / name).is_symlink()]
        folders.append(here)
    return files, folders


def beside(folder: Path) -> Path:
    """Make an empty folder under a temporary name."""
    made = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    made.mkdir()
    return made


@contextmanager
def new_folder(folder: Path, layout: Layout | None = None) -> Iterator[Path]:
    """Yield an empty folder that is renamed after the block, or deleted if the block fails. A folder of its final name
    is replaced if a layout knows all its files. Raises BadInput if it has others.
    """
    made = beside(folder)
    try:
        yield made
        if layout and (other := discard(folder, layout)) is not None:
            raise BadInput(f"{other} is not a file of this project and would be lost with {folder}: move it away")
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)  # made above, under a name that nobody else has
        raise


def drop_leftovers(folder: Path, layout: Layout) -> None:
    """Delete the folders that killed processes have left in `new_folder`. No process may be using one now."""
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        discard(left, layout)

"""The one rule that keeps the files of other people, and the only code that deletes folders.

The folder of a run, an evaluation or a sweep has our mark. Without it, a folder that holds anything is refused. With
it, a folder that is begun anew is renamed to NAME.old-N as a whole. Neither is ever deleted.

Deleted are only folders that the program makes for itself: those that are marked as temporary, and checkpoints and
adapters, if they have no other files than their manifest or the caller names. Links are never followed.
"""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

from microbudget_rl.actors.storage.files import MANIFEST, replace_text
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import MARK

Kind = Literal["run", "evaluation", "sweep", "temporary", "ray-session"]

OWN = {MARK, f".{MARK}.tmp"}
"""The mark and what a killed process may leave of it."""


def mark(folder: Path, kind: Kind, **facts: Any) -> None:
    """Mark a folder as ours. facts: further entries of the mark."""
    replace_text(folder / MARK, json.dumps({"kind": kind, **facts}))


def read_mark(folder: Path) -> dict[str, Any]:
    """Return the mark of a folder; empty if there is none that can be read."""
    return _read_object(folder / MARK)


def is_marked(folder: Path, *kinds: Kind) -> bool:
    """Whether we have made a folder of one of these kinds."""
    return read_mark(folder).get("kind") in kinds


def entries(folder: Path) -> set[str]:
    """Return the names in a folder but that of its mark."""
    return {path.name for path in folder.iterdir()} - OWN if folder.is_dir() else set()


def check_free(folder: Path, kind: Kind) -> None:
    """Raise BadInput if a folder holds anything and does not have our mark of this kind."""
    if (others := entries(folder)) and not is_marked(folder, kind):
        raise BadInput(
            f"{folder / min(others)} was there before the {kind}, and {folder} has no mark of one: move it away, or"
            f" give {'sweep' if kind == 'sweep' else 'run'}.name=OTHER"
        )


def claim(folder: Path, kind: Kind) -> None:
    """Mark a folder, which is made if there is none. Raises BadInput as `check_free` does."""
    check_free(folder, kind)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_marked(folder, kind):
        mark(folder, kind)


def set_aside(path: Path) -> Path:
    """Rename a folder or a file to NAME.old-N. Return its new path."""
    numbered = (path.with_name(f"{path.name}.old-{number}") for number in count(1))
    return path.rename(next(each for each in numbered if not os.path.lexists(each)))


def give_back(folder: Path, aside: Path | None) -> None:
    """Undo a `claim` of a folder that has got no files since, and the `set_aside` before."""
    if not entries(folder):
        if folder.is_dir():  # unless the undoing of a later claim has removed it
            (folder / MARK).unlink(missing_ok=True)
            folder.rmdir()
        if aside:
            aside.rename(folder)


def is_ours(folder: Path, names: Collection[str] = ()) -> bool:
    """Whether a folder is temporary, or has no other files than its manifest and `names` say."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    known = {*OWN, MANIFEST, *_read_object(folder / MANIFEST), *names}
    files = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return is_marked(folder, "temporary", "ray-session") or known.issuperset(files)


def delete(folder: Path, names: Collection[str] = ()) -> None:
    """Delete a folder if it is ours. A process that is killed meanwhile leaves one that still is."""
    if is_ours(folder, names):
        for path in [path for path in folder.iterdir() if path.name not in (MARK, MANIFEST)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        shutil.rmtree(folder)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def temporary_name(folder: Path) -> Path:
    """Return a name beside a folder that nobody else has."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")


def retire(folder: Path) -> Path:
    """Free a folder's name, and return its new one: a temporary name, unless it has files of somebody else."""
    retired = temporary_name(folder)
    if is_ours(folder):
        folder.rename(retired)
    elif os.path.lexists(folder):
        set_aside(folder)
    return retired


def beside(folder: Path) -> Path:
    """Make an empty folder under a temporary name, with the mark of one."""
    made = temporary_name(folder)
    made.mkdir()
    (made / MARK).write_text('{"kind": "temporary"}')
    return made


def put_in_place(made: Path, folder: Path) -> None:
    """Give a folder of `beside` its final name, without the mark. A folder of that name is set aside."""
    with suppress(OSError):
        folder.rmdir()  # if it is empty
    if os.path.lexists(folder):
        set_aside(folder)
    made.rename(folder)
    if is_marked(folder, "temporary"):
        (folder / MARK).unlink()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that is put in place after the block, or deleted if the block fails."""
    made = beside(folder)
    try:
        yield made
        put_in_place(made, folder)
    except BaseException:
        delete(made)
        raise


def drop_leftovers(folder: Path) -> None:
    """Delete what killed processes have left of making a folder. No process may be at it now."""
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        delete(left)

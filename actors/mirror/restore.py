"""A run folder made again from a store."""

import hashlib
import os
import shutil
from pathlib import Path

from actors.mirror.mirror import POINTER, Entry
from actors.mirror.store import Store
from conf.errors import BadInput

TRIES = 5
"""Passes of a run that still goes on elsewhere may delete what a restore is about to read."""


def restore(store: Store, folder: Path) -> None:
    """Make a run folder, which is whole or absent, with the state that a store holds.

    Raises BadInput if the store has no run, or another content than was written.
    """
    for last in (*(False,) * (TRIES - 1), True):
        pointer = store.document(POINTER)
        if pointer is None:
            others = ", ".join(store.neighbours()) or "nothing"
            raise BadInput(
                f"there is no run at {store.url}: give the URL that checkpoint.mirror had; there is {others}"
            )
        fresh = folder.with_name(f".{folder.name}.restored")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            _fetch(store, pointer, fresh)
        except FileNotFoundError:
            if last:
                raise
            continue
        fresh.replace(folder)
        return


def _fetch(store: Store, pointer: Entry, folder: Path) -> None:
    (folder / "checkpoints").mkdir(parents=True)
    for path, entry in pointer["files"].items():
        file = folder / path
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{store.url}/{POINTER} names {path!r}, which is outside of a run's folder: do not use it")
        file.parent.mkdir(parents=True, exist_ok=True)
        mark = hashlib.blake2b()
        with file.open("wb") as content:
            for part in store.read(entry["object"]):
                content.write(part)
                mark.update(part)
            content.flush()
            os.fsync(content.fileno())
        if mark.hexdigest() != entry["blake2b"]:
            raise BadInput(f"{store.url}/{entry['object']} has another content than was written: restore it there")
    for link, name in pointer["links"].items():
        if "/" in name or not (folder / "checkpoints" / name).is_dir():
            raise BadInput(f"{store.url}/{POINTER} names the checkpoint {name!r}, which is not there: do not use it")
        (folder / "checkpoints" / link).symlink_to(name)

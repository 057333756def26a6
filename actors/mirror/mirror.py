"""A run folder copied to a store, so that whoever reads there finds one state of the run, whole.

`mirror.json` names every file of that state. It is written last, in one step, and files that it names are never written
again: a checkpoint's folder has its digest in its name, all other files have theirs.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.mirror.store import CHUNK, Store
from actors.storage.checkpoints import target
from actors.storage.files import MANIFEST, digest, read_json
from actors.storage.run_record import RunRecord

POINTER = "mirror.json"

LEFT_OUT = {"adapters", "checkpoints", "ray-session", "wandb"}
"""Entries of a run folder that belong to this machine or are copied another way."""

PINNED = ".mirror"
"""Folder within the run's in which a checkpoint that is being copied outlives its deletion."""

LINKS = ("latest", "best")

DIGITS = 16
"""Of a digest in a name."""

Entry = dict[str, Any]


class Mirror:
    """Copies a run folder, pass after pass. Each pass leaves the store with a later state, or with the one it had.

    copied: bytes since it was made.
    """

    def __init__(self, run: RunRecord, store: Store) -> None:
        self._run, self._store = run, store
        self._pinned = run.path / PINNED
        self._pointer: Entry | None = None
        self._before: set[str] = set()
        self.copied = 0

    def copy(self) -> None:
        """Make one pass. Raises whatever the store or the disk raises; then the next pass goes on from there."""
        first = self._pointer is None
        if self._pointer is None:
            self._pointer = self._store.document(POINTER) or {"files": {}}
        old = {entry["object"] for entry in self._pointer["files"].values()}
        shutil.rmtree(self._pinned, ignore_errors=True)
        try:
            links = self._pin()
            # Files that go on are read after the checkpoint is there: a history is never older than its checkpoint.
            files = {**self._copy_history(old), **self._copy_checkpoints(set(links.values()), old)}
        finally:
            shutil.rmtree(self._pinned, ignore_errors=True)
        self._pointer = {"identity": self._run.identity(), "links": links, "files": files}
        self._store.write(POINTER, json.dumps(self._pointer, indent=1).encode())
        new = {entry["object"] for entry in files.values()}
        gone = {name for name in self._store.names() if name != POINTER} if first else self._before
        for name in gone - old - new:
            self._store.delete(name)
        self._before = old

    def _pin(self) -> dict[str, str]:
        """Keep what `latest` and `best` point at now by links of its files. Return the names by link."""
        found = {link: place for link in LINKS if (place := target(self._run.checkpoints.folder / link)) is not None}
        for place in {*found.values()}:
            shutil.copytree(place, self._pinned / place.name, copy_function=_link)
        return {link: place.name for link, place in found.items()}

    def _copy_history(self, known: set[str]) -> dict[str, Entry]:
        """Copy everything but checkpoints. Return the entries by path."""
        files = {}
        for path in sorted(self._run.path.rglob("*")):
            name = path.relative_to(self._run.path)
            if name.parts[0] in LEFT_OUT or any(part.startswith(".") for part in name.parts) or not path.is_file():
                continue
            content = path.read_bytes()
            mark = hashlib.blake2b(content).hexdigest()
            place = str(name.with_name(f"{mark[:DIGITS]}-{name.name}"))
            files[str(name)] = {"object": place, "bytes": len(content), "blake2b": mark}
            if place not in known:
                self._write(place, content)
        return files

    def _copy_checkpoints(self, names: set[str], known: set[str]) -> dict[str, Entry]:
        """Copy the pinned checkpoints. Return the entries by path."""
        files = {}
        for name in sorted(names):
            folder = self._pinned / name
            mark = digest(folder / MANIFEST)
            sealed = {**read_json(folder / MANIFEST), MANIFEST: {"bytes": _size(folder / MANIFEST), "blake2b": mark}}
            for path, entry in sealed.items():
                place = f"checkpoints/{name}-{mark[:DIGITS]}/{path}"
                files[f"checkpoints/{name}/{path}"] = {"object": place, **entry}
                if place not in known and not self._store.has(place, entry["bytes"]):
                    self._write(place, _parts(folder / path))
        return files

    def _write(self, name: str, content: bytes | Iterator[bytes]) -> None:
        self._store.write(name, self._counted(content))

    def _counted(self, content: bytes | Iterator[bytes]) -> Iterator[bytes]:
        for part in [content] if isinstance(content, bytes) else content:
            yield part
            self.copied += len(part)


def _link(source: str, name: str) -> None:
    try:
        os.link(source, name)
    except OSError:  # a file system without links
        shutil.copyfile(source, name)


def _size(file: Path) -> int:
    return file.stat().st_size


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        yield from iter(lambda: content.read(CHUNK), b"")

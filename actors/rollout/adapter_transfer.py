"""Brings adapters to nodes that do not see the learner's files: one copy per node, through Ray's object store."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TypeAlias

import psutil
import ray

from actors.messages import AdapterRef
from actors.models.adapters import ADAPTER_FILES, WEIGHTS_FILE
from actors.storage.files import lock
from actors.storage.folders import delete, mark, new_folder

Fingerprint = tuple[int, int]
"""Size in bytes and time of change of an adapter's weights: another run may have left a folder of the same name."""

Stored: TypeAlias = "ray.ObjectRef[dict[str, bytes]]"
"""Reference to the contents of an adapter's files, by file name, in Ray's object store."""


def fingerprint(folder: str | Path) -> Fingerprint | None:
    """Return the fingerprint of the adapter in a folder, None if this machine has no such folder."""
    file = Path(folder, WEIGHTS_FILE)
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None


class AdapterTransfer:
    """Puts each adapter into the object store once for all nodes, and keeps the last ones there. kept: their number."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._stored: dict[str, Stored] = {}
        self._one_at_a_time = asyncio.Lock()

    async def store(self, adapter: AdapterRef) -> Stored:
        """Return a reference to an adapter's files."""
        async with self._one_at_a_time:
            if adapter.path not in self._stored:
                self._stored[adapter.path] = await asyncio.to_thread(_put, Path(adapter.path))
                for path in list(self._stored)[: -self._kept]:
                    del self._stored[path]
            return self._stored[adapter.path]


def _put(folder: Path) -> Stored:
    return ray.put({file.name: file.read_bytes() for file in sorted(folder.iterdir())})


class AdapterCopies:
    """An engine's copies of adapters on its node. folder: named by its process, in one with those of other engines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear_left(self) -> None:
        """Delete the folders of processes that have ended."""
        for left in self.folder.parent.glob("[0-9]*"):
            if left.name.isdecimal() and not psutil.pid_exists(int(left.name)):
                delete(left)

    def add(self, name: str, expected: Fingerprint, stored: Stored) -> Path:
        """Return the folder of a new copy. Link the files of another engine's copy or, as the first engine of this
        node, write them. The disk holds linked files once, until the last folder is gone.
        """
        copy = self.folder / name
        held = lock(self.folder.parent, wait=True, place="TMPDIR")
        assert held is not None
        try:
            if not self.folder.exists():
                self.folder.mkdir()
                mark(self.folder, "temporary")
            for other in self.folder.parent.glob(f"[0-9]*/{name}"):
                if fingerprint(other) == expected:
                    with contextlib.suppress(FileNotFoundError), new_folder(copy) as made:
                        for file in ADAPTER_FILES:  # missing if the other engine has just retired it
                            os.link(other / file, made / file)
                        return copy
            write_copy(ray.get(stored), copy, expected)
            return copy
        finally:
            os.close(held)

    def drop(self, name: str) -> None:
        delete(self.folder / name, ADAPTER_FILES)

    def clear(self) -> None:
        delete(self.folder)


def write_copy(files: dict[str, bytes], folder: Path, expected: Fingerprint) -> None:
    """Write an adapter's files into a folder with its fingerprint; the folder appears complete or not at all."""
    delete(folder, ADAPTER_FILES)
    with new_folder(folder) as made:
        for name, content in files.items():
            (made / Path(name).name).write_bytes(content)
            os.utime(made / Path(name).name, ns=(expected[1], expected[1]))

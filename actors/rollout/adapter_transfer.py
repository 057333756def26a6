"""Brings adapters to nodes that do not see the learner's files: one copy per engine, through Ray's object store."""

import asyncio
from pathlib import Path
from typing import TypeAlias

import psutil
import ray

from actors.messages import AdapterRef
from actors.models.adapters import ADAPTER_FILES, WEIGHTS_FILE
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
    """An engine's copies of adapters on its node. folder: named by its process, in one for all engines of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear_left(self) -> None:
        """Delete the folders of processes that have ended."""
        for left in self.folder.parent.glob("[0-9]*"):
            if left.name.isdecimal() and not psutil.pid_exists(int(left.name)):
                delete(left)

    def add(self, name: str, stored: Stored) -> Path:
        """Write an adapter's files into a new folder, and return it."""
        copy = self.folder / name
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True)
            mark(self.folder, "temporary")
        delete(copy, ADAPTER_FILES)
        with new_folder(copy) as made:
            for file, content in ray.get(stored).items():
                (made / Path(file).name).write_bytes(content)
        return copy

    def drop(self, name: str) -> None:
        delete(self.folder / name, ADAPTER_FILES)

    def clear(self) -> None:
        delete(self.folder)

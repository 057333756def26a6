"""Adapters sent through Ray's object store to nodes that do not share the learner's file system."""

from pathlib import Path

import ray

from actors.messages import AdapterRef
from actors.models.adapters import WEIGHTS_FILE
from actors.storage.folders import new_folder
from actors.storage.layout import ADAPTER

Fingerprint = tuple[int, int]
"""Size in bytes and time of change of an adapter's weights: another run may have left a folder of the same name."""


def fingerprint(folder: str) -> Fingerprint | None:
    """Return the fingerprint of the adapter in a folder, None if this machine has no such folder."""
    file = Path(folder, WEIGHTS_FILE)
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None


class AdapterTransfer:
    """Puts each adapter into the object store once, for however many nodes, and keeps the latest few there."""

    def __init__(self, kept: int = 2) -> None:
        self._kept = kept
        self._stored: dict[str, ray.ObjectRef[dict[str, bytes]]] = {}

    def store(self, adapter: AdapterRef) -> "ray.ObjectRef[dict[str, bytes]]":
        """Return a reference to the contents of an adapter's files, by file name."""
        if adapter.path not in self._stored:
            files = {file.name: file.read_bytes() for file in sorted(Path(adapter.path).iterdir())}
            self._stored[adapter.path] = ray.put(files)
            for path in list(self._stored)[: -self._kept]:
                del self._stored[path]
        return self._stored[adapter.path]


def write_copy(files: dict[str, bytes], folder: Path) -> None:
    """Write an adapter's files into a folder, which appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder, ADAPTER) as made:
        for name, content in files.items():
            (made / Path(name).name).write_bytes(content)

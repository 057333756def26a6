"""Adapters on their way to nodes that do not share the learner's file system: through Ray's object store."""

import shutil
from pathlib import Path

import ray

from actors.messages import AdapterRef

WEIGHTS = "adapter_model.safetensors"

Stamp = tuple[int, int]
"""Size and time of change of an adapter's weights: a folder of the same name with others is of another run."""


def stamp(folder: str) -> Stamp | None:
    """None where the folder is not to be seen."""
    file = Path(folder, WEIGHTS)
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None


class AdapterTransfer:
    """Adapters in the object store, each put there once however many nodes it goes to. kept: the latest so many."""

    def __init__(self, kept: int = 2) -> None:
        self._kept = kept
        self._references: dict[str, ray.ObjectRef[dict[str, bytes]]] = {}

    def of(self, adapter: AdapterRef) -> "ray.ObjectRef[dict[str, bytes]]":
        """The files of an adapter that this machine has, by name."""
        if adapter.path not in self._references:
            self._references[adapter.path] = ray.put(
                {file.name: file.read_bytes() for file in sorted(Path(adapter.path).iterdir())}
            )
            for path in list(self._references)[: -self._kept]:
                del self._references[path]
        return self._references[adapter.path]


def unpack(files: dict[str, bytes], folder: Path) -> None:
    """Write a parcel's files into a folder of this machine, which appears complete or not at all."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    for path in (temporary, folder):
        shutil.rmtree(path, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in files.items():
        (temporary / Path(name).name).write_bytes(content)
    temporary.rename(folder)

"""A folder anywhere that fsspec reaches, in which every file is whole or absent."""

import json
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from conf.errors import BadInput

CHUNK = 2**20
"""Bytes between two looks at the bandwidth."""

TEMPORARY = ".part"
"""End of the name of a file that is being written, where files can be renamed."""


class Store:
    """One run's place under a URL. What goes wrong raises whatever the URL's library raises."""

    def __init__(self, url: str, name: str, megabytes_per_s: float = float("inf")) -> None:
        """Raises BadInput for a URL of a kind that cannot be used here."""
        self.url = f"{url.rstrip('/')}/{name}"
        self._seconds_per_byte = 1 / (megabytes_per_s * 1e6)
        try:
            core: Any = import_module("fsspec.core")
            self._files, self._root = core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{url}: cannot be used here ({error}); install that, or give another URL") from None

    def write(self, name: str, content: bytes | Iterator[bytes]) -> None:
        """Write a file, whole or not at all, no faster than is allowed."""
        chunks = iter([content]) if isinstance(content, bytes) else content
        path = self._path(name)
        if not self._renames:
            file = self._files.open(path, "wb", autocommit=False)
            try:
                self._pour(chunks, file)
                file.close()
                file.commit()
            except BaseException:
                file.discard()
                raise
            return
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            with self._files.open(path + TEMPORARY, "wb") as file:
                self._pour(chunks, file)
            self._files.mv(path + TEMPORARY, path)
        except BaseException:
            if self._files.exists(path + TEMPORARY):
                self._files.rm_file(path + TEMPORARY)
            raise

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the parts of a file. Raises FileNotFoundError if there is none."""
        with self._files.open(self._path(name), "rb") as file:
            yield from iter(lambda: file.read(CHUNK), b"")

    def document(self, name: str) -> Any:
        """Return the content of a JSON file; None if there is none."""
        self._files.invalidate_cache()
        try:
            return json.loads(b"".join(self.read(name)))
        except FileNotFoundError:
            return None

    def has(self, name: str, size: int) -> bool:
        """Whether there is a file of that name and size."""
        try:
            return bool(self._files.info(self._path(name))["size"] == size)
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """Return the names of all files."""
        self._files.invalidate_cache()
        prefix = f"{self._root}/"
        return [path.removeprefix(prefix) for path in self._files.find(self._root)]

    def neighbours(self) -> list[str]:
        """Return what else is in the folder that this one is in."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._root.rpartition("/")[0], detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def delete(self, name: str) -> None:
        self._files.rm_file(self._path(name))

    @property
    def _renames(self) -> bool:
        """Whether files are renamed in one step, as on a disk; object stores show them when they are whole."""
        return "file" in self._files.protocol

    def _pour(self, chunks: Iterator[bytes], file: Any) -> None:
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                started, part = time.monotonic(), chunk[start : start + CHUNK]
                file.write(part)
                # What is left of the time that this part may take: the bandwidth is bounded by waiting in its thread.
                time.sleep(max(len(part) * self._seconds_per_byte - (time.monotonic() - started), 0.0))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

"""What a case of the battery is, and the ways in which any file can be damaged."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hostile.stock import Stock

Prepare = Callable[[Path, Stock], list[str]]
"""Puts bad input into an empty folder and returns the arguments of the command that is to meet it."""

DEEP = 10_000
"""Levels of nesting."""


@dataclass(frozen=True)
class Case:
    """One bad input. kind: heading it is counted under. refused: whether it has to be, None where either will do.

    resumes: whether the command goes on with what is in its folder, which it then may change once it is accepted.
    """

    kind: str
    name: str
    command: str
    prepare: Prepare = field(repr=False)
    refused: bool | None = True
    resumes: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.name}"


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), max(len(content) // 7, 1)):
        content[place] ^= 0x80
    file.write_bytes(bytes(content))


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def nested(file: Path) -> None:
    file.write_text("[" * DEEP + "]" * DEEP + "\n")


def a_list(file: Path) -> None:
    file.write_text("[1, 2]\n")


def a_number(file: Path) -> None:
    file.write_text("7\n")


def a_text(file: Path) -> None:
    file.write_text('"text"\n')


def null(file: Path) -> None:
    file.write_text("null\n")


def an_object(file: Path) -> None:
    file.write_text('{"a": {"b": [1]}}\n')


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def a_giant_number(file: Path) -> None:
    file.write_text("1" * 5000 + "\n")


DAMAGES: tuple[Callable[[Path], None], ...] = (
    cut,
    emptied,
    flipped,
    zeroed,
    nested,
    a_list,
    a_number,
    a_text,
    null,
    an_object,
    a_folder,
    a_pipe,
    a_loop,
    a_giant_number,
)

HARMLESS = {a_loop, null}
"""A dangling link is as good as no file, where there need not be one."""

JUNK: tuple[Any, ...] = (None, True, -1, 1e400, "x", [], {}, [None], {"a": None}, 10**400)
"""Values of types and sizes that nobody expects."""


def changed(document: Any, path: str, value: Any) -> Any:
    """Return a copy of a document with another value at a dotted path."""
    copy = json.loads(json.dumps(document))
    *outer, last = path.split("/")
    inner = copy
    for key in outer:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[int(last) if isinstance(inner, list) else last] = value
    return copy


def paths(document: Any, before: str = "") -> Iterator[str]:
    """Yield the path of everything within a document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield f"{before}{key}"
        yield from paths(value, f"{before}{key}/")


def copied(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place / folder.name, symlinks=True)
    return place / folder.name

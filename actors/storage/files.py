"""Writes files that are whole or absent even if a process is killed, and seals and locks folders."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from microbudget_rl.actors.storage.documents import Document
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import MARK
from microbudget_rl.conf.parsing import read_json, read_json_lines, read_text

MANIFEST = "manifest.json"

REMEDY = "restore it, or move it out of the way to do without it"

OS_ERROR = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
"""Pattern of an operating system's error number in the text of errors from Python and safetensors (Rust)."""

DISK_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "raise the quota or make room there",
    errno.EROFS: "make it writable again",
    errno.EIO: "look for its fault in the kernel's log",
}

D = TypeVar("D", bound=Document)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add this path to an OSError without one, such as those of write and fsync."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def replace_text(file: Path, text: str) -> None:
    """Write a file so that a reader, or a later process after a crash, sees the old content or the new."""
    temporary = file.with_name(f".{file.name}.tmp")
    with naming(temporary):
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.replace(file)


def write_document(file: Path, document: Document) -> None:
    """Write a document with one key per line, by `replace_text`."""
    replace_text(file, json.dumps(document.content, indent=2) + "\n")


def write_rows(file: Path, rows: Iterable[Document]) -> None:
    """Write a JSONL file, by `replace_text`."""
    replace_text(file, "".join(json.dumps(row.content) + "\n" for row in rows))


def append_row(file: Path, *rows: Document) -> None:
    """Add rows to a JSONL file and flush them to disk: all of them or, if the disk refuses that, nothing."""
    with naming(file), file.open("ab", buffering=0) as lines:
        end, left = lines.tell(), "".join(json.dumps(row.content) + "\n" for row in rows).encode()
        try:
            while left:
                left = left[lines.write(left) :]
            os.fsync(lines.fileno())
        except OSError:
            lines.truncate(end)
            raise


def read_optional(file: Path, kind: Any) -> Any:
    """Return the content of a JSON file, None if there is no file. Raises BadInput if it is damaged or of another kind.

    kind: any type that pydantic validates.
    """
    return read_json(file, kind, REMEDY) if os.path.lexists(file) else None


def read_document(file: Path, kind: type[D]) -> D | None:
    """Return a document, None if there is no file. Raises BadInput if it is damaged."""
    document: D | None = read_optional(file, kind)
    return document


def read_rows(file: Path, kind: type[D]) -> list[D]:
    """Return the rows of a JSONL file without a last line that is only half written; none if there is no file.

    Raises BadInput for a damaged line.
    """
    return list(read_json_lines(file, kind, REMEDY)) if os.path.lexists(file) else []


def drop_half_line(file: Path) -> None:
    """Drop the end of a JSONL file that a crash has cut off."""
    if file.exists() and not (text := read_text(file, REMEDY)).endswith("\n"):
        replace_text(file, text[: text.rfind("\n") + 1])


def disk_trouble(folder: Path, error: BaseException) -> str | None:
    """Return why a run folder cannot be written, with path and remedy; None if an error means something else."""
    found = OS_ERROR.search(str(error))
    number = int(found[1] or found[2]) if found else 0
    # Another process may have made a part of a deleted folder again.
    deleted = number == errno.ENOENT and str(folder) in str(error) and not (folder / "config.yaml").exists()
    if deleted or not folder.is_dir():
        return f"the run folder {folder} is gone: bring it back, or give the same command to start again"
    if number not in DISK_REMEDIES:
        return None
    fuller = min(folder, Path(tempfile.gettempdir()), key=lambda place: shutil.disk_usage(place).free)
    path = fuller if number == errno.ENOSPC else folder
    path = error.filename if isinstance(error, OSError) and error.filename else path
    remedy = DISK_REMEDIES[number]
    return f"nothing can be written to {path} ({os.strerror(number)}): {remedy}, then give the same command"


def seal(folder: Path) -> None:
    """Write the manifest of a folder, with size and digest of every file in it but its mark, and flush all to disk."""
    seals = (folder / MANIFEST, folder / MARK)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file not in seals]
    manifest = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "blake2b": digest(file)} for file in files
    }
    replace_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def damage(folder: Path, under: str = "") -> str | None:
    """Return how a folder, or the part of it under a subfolder, differs from its manifest; None if it does not."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        there = {str(file.relative_to(folder)) for file in folder.rglob("[!.]*") if file.is_file()} - {MANIFEST}
        if unsealed := sorted(there - manifest.keys()):
            return f"{unsealed[0]} is not in {MANIFEST}"
        if not any(name.startswith(under) for name in manifest):
            return f"{MANIFEST} names no file in it"
        for name, sealed in manifest.items():
            file = folder / name
            if not name.startswith(under):
                continue
            if ".." in file.relative_to(folder).parts:
                return f"{MANIFEST} names {name}, which is not in the folder"
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != sealed["bytes"]:
                return f"{name} has {file.stat().st_size} bytes instead of {sealed['bytes']}"
            if digest(file) != sealed["blake2b"]:
                return f"{name} has another content than was written"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()


def private_folder(root: str = "") -> Path:
    """Return the temporary folder, or `root`, if it is this user's alone; else a folder in it that is.

    Other processes must find that folder, so its name is predictable. Raises BadInput if somebody else has made it.
    """
    shared = Path(root or tempfile.gettempdir())
    if is_private(shared):
        return shared
    folder = shared / f"mbrl-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise BadInput(f"{folder} is not a folder of yours alone: remove it, or set TMPDIR to a folder of your own")
    return folder


def is_private(folder: Path) -> bool:
    """Whether a path is a folder, not a link, that nobody else can enter. Raises OSError if there is none."""
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )


def lock(folder: Path, wait: bool = False, place: str = "run.folder") -> int | None:
    """Make a folder for this user alone, if there is none, and lock it for this process.

    Return a descriptor that holds the lock while it is open; None if another process holds it and `wait` is false.
    Raises BadInput if the folder cannot be made or written to. place: the setting that names the folder.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number))
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            os.close(descriptor)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise BadInput(
            f"the folder {folder} cannot be made or written to ({error.strerror}): make that possible, or give another"
            f" {place}"
        ) from error
    return descriptor

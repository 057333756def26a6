"""Files that are whole or not there, whatever dies meanwhile."""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(file: Path, text: str) -> None:
    """Write a file so that a reader, or a later process after a crash, sees the old content or the new."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text)
    sync(temporary)
    temporary.replace(file)


def seal(folder: Path) -> None:
    """Write down the size and digest of every file under a folder, once or anew, and flush all of it to disk."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / MANIFEST]
    manifest = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "blake2b": digest(file)} for file in files
    }
    replace_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a folder since `seal`; None if it is as it was."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, sealed in manifest.items():
            file = folder / name
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

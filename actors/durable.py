"""Files that are whole or not there, whatever dies meanwhile."""

import os
from pathlib import Path


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

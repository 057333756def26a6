"""Why a run folder takes nothing more: one sentence for a person, with the path and the remedy."""

import errno
import os
import re
from pathlib import Path

OS_ERROR = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
"""Number of an operating system's error in the text of Python's errors, and of those of safetensors, which is Rust."""

REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "raise the quota or make room there",
    errno.EROFS: "make it writable again",
    errno.EIO: "look for its fault in the kernel's log",
}


def disk_trouble(folder: Path, error: BaseException) -> str | None:
    """Return what keeps a run from writing to its folder, if that is what an error says; else None."""
    found = OS_ERROR.search(str(error))
    number = int(found[1] or found[2]) if found else 0
    # Another process may have made a part of a deleted folder again.
    deleted = number == errno.ENOENT and str(folder) in str(error) and not (folder / "config.yaml").exists()
    if deleted or not folder.is_dir():
        return f"the run folder {folder} is gone: bring it back, or give the same command to start anew"
    if number not in REMEDIES:
        return None
    path = error.filename if isinstance(error, OSError) and error.filename else folder
    return f"nothing can be written to {path} ({os.strerror(number)}): {REMEDIES[number]}, then give the same command"

"""Engines and libraries kept off the screen, which then shows what a command itself says."""

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from actors.errors import ActorDied, root_cause


def log_of(command: str) -> Path:
    """Make an empty file for what an engine and libraries say."""
    descriptor, name = tempfile.mkstemp(prefix=f"microbudget-{command}-", suffix=".log")
    os.close(descriptor)
    return Path(name)


@contextmanager
def off_screen(command: str) -> Iterator[TextIO]:
    """Yield a stream to stdout. All else that is printed meanwhile, here or by a new process, goes to a file.

    An engine that fails becomes a sentence that names the file, and SystemExit with 1. Else the file is deleted.
    """
    log, streams = log_of(command), (1, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in streams]
    screen = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    with log.open("ab") as file:
        for number in streams:
            os.dup2(file.fileno(), number)
    failed = ""
    try:
        with screen:
            yield screen
    except Exception as error:  # one of an engine, perhaps in a task group, is told here; others go on up
        if not isinstance(cause := root_cause(error), ActorDied | RuntimeError):
            raise
        traceback.print_exc()
        failed = f"{command}.py: failed: {' '.join(str(cause).split())}; what the engine said is in {log}"
        raise SystemExit(1) from None
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, original in zip(streams, kept, strict=True):
            os.dup2(original, number)
            os.close(original)
        if failed:
            print(failed, file=sys.stderr)
        else:
            log.unlink()

"""What a command shows: engines and libraries kept off the screen, and two answers beside each other."""

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.table import Table
from rich.text import Text

from actors.errors import ActorDied, root_cause
from conf.command import LAYOUT
from conf.text import printable

STYLES = {"correct": "green", "wrong": "red"}
"""By verdict; all others are yellow."""


@contextmanager
def off_screen(command: str) -> Iterator[TextIO]:
    """Yield a stream to stdout. All else that is printed meanwhile, here or by a new process, goes to a file.

    An engine that fails becomes a sentence that names the file, and SystemExit with 1. Else the file is deleted.
    """
    descriptor, log = tempfile.mkstemp(prefix=f"microbudget-{command}-", suffix=".log")
    flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    screen = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    for number, _ in kept:
        os.dup2(descriptor, number)
    os.close(descriptor)
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
        flush()
        for number, original in kept:
            os.dup2(original, number)
            os.close(original)
        if failed:
            print(failed, file=sys.stderr)
        else:
            Path(log).unlink()


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def side_by_side(heads: Sequence[str], answers: Sequence[str], verdicts: Sequence[str] = ()) -> Table:
    """Return a table of two answers, with their verdicts below."""
    table = Table(expand=True)
    for head in heads:
        table.add_column(head, ratio=1, overflow="fold")
    table.add_row(*(Text(printable(answer, LAYOUT)) for answer in answers))
    if verdicts:
        table.add_section()
        table.add_row(*(Text(verdict, style=STYLES.get(verdict.split(",")[0], "yellow")) for verdict in verdicts))
    return table

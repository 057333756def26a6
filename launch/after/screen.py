"""What a command shows: engines and libraries kept off the screen, and two answers beside each other."""

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.table import Table
from rich.text import Text

from actors.errors import ActorDied, root_cause
from conf.command import LAYOUT
from conf.errors import printable

STYLES = {"correct": "green", "wrong": "red"}
"""Colours of verdicts; all others are yellow."""


@contextmanager
def off_screen(command: str) -> Iterator[TextIO]:
    """Yield a stream to stdout. All else that is printed meanwhile, here or by a new process, goes to a file.

    An engine that fails becomes a sentence that names the file, and SystemExit with 1. Else the file is deleted.
    """
    descriptor, log = tempfile.mkstemp(prefix=f"microbudget-{command}-", suffix=".log")
    kept, failed = [os.dup(1), os.dup(2)], ""
    direct([descriptor] * 2)
    os.close(descriptor)
    try:
        with os.fdopen(os.dup(kept[0]), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as screen:
            yield screen
    except Exception as error:  # one of an engine, perhaps in a task group, is told here; others go on up
        if not isinstance(cause := root_cause(error), ActorDied | RuntimeError):
            raise
        traceback.print_exc()
        failed = f"{command}.py: failed: {' '.join(str(cause).split())}; what the engine said is in {log}"
        raise SystemExit(1) from None
    finally:
        direct(kept)
        for original in kept:
            os.close(original)
        if failed:
            print(failed, file=sys.stderr)
        else:
            Path(log).unlink()


def direct(descriptors: Sequence[int]) -> None:
    """Have stdout and stderr, in this order, go to other files."""
    for stream, number, descriptor in zip((sys.stdout, sys.stderr), (1, 2), descriptors, strict=True):
        stream.flush()
        os.dup2(descriptor, number)


def side_by_side(answers: Mapping[str, str], verdicts: Sequence[str] = ()) -> Table:
    """Return a table of answers under their heads, with their verdicts below."""
    table = Table(expand=True)
    for head in answers:
        table.add_column(head, ratio=1, overflow="fold")
    table.add_row(*(Text(printable(answer, LAYOUT)) for answer in answers.values()))
    if verdicts:
        table.add_section()
        table.add_row(*(Text(verdict, style=STYLES.get(verdict.split(",")[0], "yellow")) for verdict in verdicts))
    return table

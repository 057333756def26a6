"""Two answers beside each other in a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from conf.command import LAYOUT
from conf.text import printable

STYLES = {"correct": "green", "wrong": "red"}
"""By verdict; all others are yellow."""


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

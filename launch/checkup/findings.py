"""What was found of one thing that a run needs, as a person reads it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

State = Literal["good", "warning", "bad"]

STYLES: dict[State, str] = {"good": "green", "warning": "yellow", "bad": "bold red"}


@dataclass(frozen=True)
class Finding:
    """what: the thing. state: bad forbids a run. text: what it is like; of other than good ones with what to do."""

    what: str
    state: State
    text: str


def render(findings: Iterable[Finding]) -> RenderableType:
    """Show findings one below the other, to be read and to be pasted."""
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for found in findings:
        table.add_row(Text(found.state, STYLES[found.state]), Text(f"{found.what}: {found.text}"))
    return table

"""Explains the settings, from the schema: `python launch/run.py help [SECTION | KEY …]`."""

import inspect
import re
from dataclasses import fields, is_dataclass
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conf.command import PlainConsole
from conf.errors import BadInput
from conf.load import recipe_names
from conf.schema import Config, ConfigWithSweep
from conf.settings import Setting, expected, meanings, settings, show
from conf.suggestions import hint

WORDS = frozenset({"help", "--help", "-h"})
"""Arguments that ask for help."""


def explain(arguments: list[str]) -> None:
    """Print what the sections and settings named by the arguments mean, or which there are if none is named.

    Raises BadInput for a name that is neither.
    """
    console = PlainConsole()
    topics = [argument for argument in arguments if argument not in WORDS and "=" not in argument]
    known = list(settings(ConfigWithSweep))
    if not topics:
        _print_overview(console)
    for topic in topics:
        found = [item for item in known if f"{item.path}.".startswith(f"{topic}.")]
        if not found:
            near = hint(topic, {name for item in known for name in (item.path, item.path.rpartition(".")[0]) if name})
            raise BadInput(f"help {topic}: no such section or setting; {near}all sections: {', '.join(_sections())}")
        if found[0].path != topic:
            console.print(Text(f"{topic}: {_about(found[0].section)}\n"))
        for item in found:
            _print_setting(console, item)


def _print_overview(console: Console) -> None:
    console.print(Text("python launch/run.py conf=NAME [key=value …]\n", style="bold"))
    console.print(Text(f"NAME: {', '.join(recipe_names())}\n"))
    for heading, rows in (
        ("Sections of settings", {name: _about(kind) for name, kind in _sections().items()}),
        ("Settings without a section", meanings(Config)),
    ):
        table = Table.grid("", "", padding=(0, 2))
        for name, text in rows.items():
            table.add_row(Text(name, style="bold"), Text(text.split(". ")[0].removesuffix(".")))
        console.print(Text(heading), Padding(table, (0, 0, 1, 2)))
    console.print(Text("help SECTION explains its settings, help KEY one of them: help learner, help lora.alpha."))


def _print_setting(console: Console, item: Setting) -> None:
    default = getattr(item.section(), item.path.rpartition(".")[2])
    default = f"[{','.join(map(show, default))}]" if isinstance(default, list) else show(default)
    about = f"{item.meaning}\nValues: {expected(item.kind)}"
    if item.rule:
        about += ", " + re.sub("^use (a value |a number )?", "", item.rule.remedy)
    about += f"\nSource of the default: {item.source}"
    if item.resumable:
        about += "\nA run may be resumed with another value."
    console.print(Text(f"{item.path}={default}", style="bold"))
    console.print(Padding(Text(about), (0, 0, 1, 2)))


def _sections() -> dict[str, Any]:
    return {field.name: field.type for field in fields(ConfigWithSweep) if is_dataclass(field.type)}


def _about(section: type) -> str:
    """Return what a section is about: the first paragraph of its docstring."""
    return " ".join(inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].split())

"""Explains the recipes and settings: `python launch/run.py help [SECTION | KEY …]`.

`python -m conf.help` prints docs/reference/settings.md.
"""

import inspect
import re
from dataclasses import is_dataclass
from itertools import groupby, takewhile
from operator import attrgetter
from typing import Any, get_type_hints

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from microbudget_rl.conf.command import WORDS, PlainConsole, as_typed
from microbudget_rl.conf.errors import BadInput, hint
from microbudget_rl.conf.load import BASE, FOLDER, origins, recipe_names
from microbudget_rl.conf.schema import CommandLine, SweepCommandLine
from microbudget_rl.conf.settings import MOST, Setting, expected, settings, show

PAGE = """# Settings

Every setting of a recipe or the command line, with its default, values and bounds; `python launch/run.py help` shows
the same. [Recipes](recipes.md) set many of them, such as the learning rate, to other values:
`python launch/run.py conf=NAME show=true` prints those. "The paper" is
[Plasticity vs. Rigidity](https://arxiv.org/abs/2601.06677).

A setting marked ↻ may have another value when a run is resumed. This page is generated from `conf/schema/`:
`python -m conf.help` prints it, and a test compares them.

## The settings you touch first

| setting | default | |
| --- | --- | --- |
"""

FIRST = (
    *("budget.hours", "run.name", "model.path", "data.source", "data.eval_source", "lora.rank"),
    *("learner.learning_rate", "learner.problems_per_update", "learner.max_staleness", "rollout.samples_per_problem"),
    *("rollout.max_response_tokens", "algorithm.preset", "reward.preset", "reward.custom", "eval.problems", "eval.n"),
    *("checkpoint.every", "run.report_to"),
)

OF_THE_GRID = re.compile(r"r(8|64|256)_(.+)")
"""Pattern of a recipe's name that only sets the rank of another recipe."""


def explain(arguments: list[str], usage: str) -> None:
    """Print the meaning of the sections and settings that the arguments name. If none is named, print the command's
    usage, the recipes and the sections.

    Raises BadInput for a name that is neither.
    """
    console = PlainConsole()
    topics = [argument for argument in arguments if argument not in WORDS and "=" not in argument]
    known = list(settings(SweepCommandLine))
    if not topics:
        _print_overview(console, usage)
    for topic in topics:
        found = [item for item in known if f"{item.path}.".startswith(f"{topic}.")]
        if not found:
            names = dict.fromkeys(name for item in known for name in (item.path, item.path.rpartition(".")[0]) if name)
            all_ = f"{hint(topic, names)}all sections: {', '.join(_sections())}"
            raise BadInput(f"help {topic}: no such section or setting; {all_}")
        if found[0].path != topic:
            console.print(Text(f"{topic}: {about(found[0].section)}\n"))
        for item in found:
            resumable = "\nA run may be resumed with another value." if item.resumable else ""
            values = f"Values: {expected(item.kind)}{bounds(item)}"
            text = f"{item.meaning}\n{values}\nSource of the default: {item.source}{resumable}"
            console.print(Text(f"{item.path}={default(item)}", style="bold"))
            console.print(Padding(Text(text), (0, 0, 1, 2)))


def recipe_lines() -> dict[str, str]:
    """Return one line on each recipe; all those that only set another one's rank share a line."""
    lines, at_ranks = {}, set()
    for name in recipe_names():
        if found := OF_THE_GRID.fullmatch(name):
            at_ranks.add(found[2])
        elif name != BASE:
            text = (FOLDER / f"{name}.yaml").read_text("utf-8")
            comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
            lines[name] = first_sentence(" ".join(line.lstrip("# ") for line in comment))
    lines["rRANK_NAME"] = f"The paper's grid, NAME at rank 8, 64 or 256: NAME is one of {', '.join(sorted(at_ranks))}"
    return lines


def show_settings(asked: CommandLine, arguments: list[str]) -> None:
    """Print every setting of a command line, by section: its value, the value's source, its meaning."""
    console, given = PlainConsole(), origins(arguments)
    heading = None
    for item in settings(CommandLine):
        if (section := item.path.rpartition(".")[0].partition(".")[0]) != heading:
            heading = section
            console.print(Text(f"\n{section or 'Without a section'}", style="bold"))
        value = attrgetter(item.path)(asked)
        source = next((given[key] for key in given if f"{key}.".startswith(f"{item.path}.")), "default")
        line = Text(f"  {item.path}={show(value)}", style="cyan" if source != "default" else "")
        console.print(line + Text(f"  ({source})", style="dim"), soft_wrap=True)
        console.print(Padding(Text(first_sentence(item.meaning), style="dim"), (0, 0, 0, 6)))


def _print_overview(console: Console, usage: str) -> None:
    console.print(as_typed(inspect.cleandoc(usage)) + "\n")
    for heading, rows in (
        ("Recipes, conf=NAME", recipe_lines()),
        ("Sections of settings", {name: about(kind) for name, kind in _sections().items()}),
        (
            "Settings without a section",
            {item.path: item.meaning for item in settings(CommandLine) if "." not in item.path},
        ),
    ):
        table = Table.grid("", "", padding=(0, 2))
        for name, text in rows.items():
            table.add_row(Text(name, style="bold"), Text(first_sentence(text)))
        console.print(Text(heading, style="bold"), Padding(table, (0, 0, 1, 2)))
    console.print(Text("help SECTION explains its settings, help KEY one of them: help learner, help lora.alpha."))


def default(item: Setting) -> str:
    return show(getattr(item.section(), item.path.rpartition(".")[2]))


def bounds(item: Setting) -> str:
    """Describe the condition on a setting's values; empty if there is none."""
    if not item.rule:
        return ""
    return ", " + re.sub(f"^use (a value |a number )?|, up to {MOST:,}$", "", item.rule.remedy)


def first_sentence(text: str) -> str:
    return text.split(". ")[0].removesuffix(".")


def _sections() -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(SweepCommandLine).items() if is_dataclass(kind)}


def about(section: type) -> str:
    """Return the first paragraph of a section's docstring."""
    return " ".join(inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].split())


def page() -> str:
    """Return the text of docs/reference/settings.md."""
    known = {item.path: item for item in settings(SweepCommandLine)}
    text = PAGE
    for path in FIRST:
        text += f"| `{path}` | `{default(known[path]) or 'empty'}` | {first_sentence(known[path].meaning)} |\n"
    for section, members in groupby(known.values(), key=lambda item: item.section):
        items = list(members)
        name = items[0].path.rpartition(".")[0]
        text += f"\n## {name}\n\n{about(section)}\n\n" if name else "\n## Without a section\n\n"
        for item in items:
            source = item.source.removeprefix("our choice: ")
            text += f"- **`{item.path}={default(item)}`**{' ↻' if item.resumable else ''} {item.meaning}  \n"
            text += f"  Values: {expected(item.kind)}{bounds(item)}. Default: {source}.\n"
    return text


if __name__ == "__main__":
    print(page(), end="")

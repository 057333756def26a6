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
from microbudget_rl.conf.load import BASE, FOLDER, load, origins, recipe_names
from microbudget_rl.conf.schema import CommandLine, SweepCommandLine
from microbudget_rl.conf.settings import MOST, SECTION, Setting, expected, settings, show

PAGE = """# Settings

Every setting of a recipe or the command line: default, meaning, *values*, and why it has this default. Without a
reason, the default is our choice. You may change a setting marked ↻ when you resume a run.

    python launch/run.py help lora.rank          # explains a setting or a section
    python launch/run.py conf=gsm8k show=true    # shows every value of a recipe

"The paper" is [Plasticity vs. Rigidity](https://arxiv.org/abs/2601.06677). `python -m conf.help` prints this page.

## The settings you touch first

Begin with a recipe, which sets them to values that fit its model. [What to choose](../start/choose.md) says which to
change.

| setting | default | in `gsm8k` |
| --- | --- | --- |
"""

FIRST = (
    *("budget.hours", "model.path", "data.source", "data.eval_source", "lora.rank", "lora.alpha"),
    *("learner.learning_rate", "learner.problems_per_update", "rollout.samples_per_problem"),
    *("rollout.max_response_tokens", "eval.problems", "eval.n"),
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
        items = [item for item in known if f"{item.path}.".startswith(f"{topic}.")]
        if not items:
            names = dict.fromkeys(name for item in known for name in (item.path, item.path.rpartition(".")[0]) if name)
            all_ = f"{hint(topic, names)}all sections: {', '.join(_sections())}"
            raise BadInput(f"help {topic}: no such section or setting; {all_}")
        if items[0].path != topic:
            console.print(Text(f"{topic}: {about(items[0].section)}\n"))
        for item in items:
            texts = zip(("Values: ", "Why: "), facts(item), strict=True)
            resumable = ["You may change it when you resume a run."] * item.resumable
            text = "\n".join([item.meaning, *(f"{name}{fact}." for name, fact in texts if fact), *resumable])
            console.print(Text(f"{item.path}={default(item)}", style="bold"))
            console.print(Padding(Text(text), (0, 0, 1, 2)))


def recipe_lines() -> dict[str, str]:
    """Return one line on each recipe; all those that only set another one's rank share a line."""
    lines, at_ranks = {}, set()
    for name in recipe_names():
        if match := OF_THE_GRID.fullmatch(name):
            at_ranks.add(match[2])
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
    loose = {item.path: item.meaning for item in settings(CommandLine) if "." not in item.path}
    sections = {name: about(kind) for name, kind in _sections().items()}
    tables = {
        "Recipes, conf=NAME": recipe_lines(),
        "Sections of settings": sections,
        "Settings without a section": loose,
    }
    for heading, rows in tables.items():
        table = Table.grid("", "", padding=(0, 2))
        for name, text in rows.items():
            table.add_row(Text(name, style="bold"), Text(first_sentence(text)))
        console.print(Text(heading, style="bold"), Padding(table, (0, 0, 1, 2)))
    console.print(Text("help SECTION explains its settings, help KEY one of them: help learner, help lora.alpha."))


def default(item: Setting) -> str:
    return show(getattr(item.section(), item.path.rpartition(".")[2]))


def facts(item: Setting) -> tuple[str, str]:
    """Return the values of a setting and the reason of its default, each empty if there is nothing to say."""
    rule = re.sub(f"^use (a value |a number |one of )?|, up to {MOST:,}$", "", item.rule.remedy) if item.rule else ""
    if rule and all(re.search(rf"\b{re.escape(value)}( \(|:)", item.meaning) for value in rule.split(", ")):
        rule = ""  # the meaning explains each
    elif not rule and item.kind not in (bool, str):
        rule = expected(item.kind)
    rule = re.sub(r"^from (\S+) to (\S+)$", r"\1–\2", re.sub(r"^(\S+) or more$", r"≥\1", rule))
    return rule, "" if item.source in ("our choice", SECTION) else item.source.removeprefix("our choice: ")


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
    recipe = load(["conf=gsm8k"])
    text = PAGE
    for path in FIRST:
        text += f"| `{path}` | `{default(known[path]) or 'empty'}` | `{show(attrgetter(path)(recipe))}` |\n"
    for section, members in groupby(known.values(), key=lambda item: item.section):
        items = list(members)
        name = items[0].path.rpartition(".")[0]
        text += f"\n## {name}\n\n{about(section)}\n\n" if name else "\n## Without a section\n\n"
        for item in items:
            allowed, why = facts(item)
            text += f"- **`{item.path}={default(item)}`**{' ↻' if item.resumable else ''} {item.meaning}"
            text += f" *{allowed}.*" * bool(allowed) + f" Why: {why}." * bool(why) + "\n"
    return re.sub(r"docs/(\S+/(\S+))\.md", r"[\2](../\1.md)", text)


if __name__ == "__main__":
    print(page(), end="")

"""Print a generated page of docs/: `python -m conf.pages settings` or `python -m conf.pages coming-from`."""

import sys
from collections.abc import Sequence
from itertools import groupby
from typing import get_args, get_origin

from conf.arguments import words_and_options
from conf.catalogue import table
from conf.command import command
from conf.errors import BadInput
from conf.help import about, bounds, default, first_sentence, recipe_lines
from conf.schema import SweepCommandLine
from conf.settings import Setting, settings

SETTINGS = """# Settings

Every setting of a recipe or the command line, with its type, bounds and default; `python launch/run.py help` shows the
same. Recipes set many of them, such as the learning rate, to other values: `python launch/run.py conf=NAME show=true`
prints those. "The paper" is [Plasticity vs. Rigidity](https://arxiv.org/abs/2601.06677).

A setting marked ↻ may have another value when a run is resumed. This page is generated from `conf/schema/`:
`python -m conf.pages settings` prints it, and a test compares them.

## The settings you touch first
"""

FIRST = (
    *("budget.hours", "run.name", "model.path", "data.source", "data.eval_source", "lora.rank"),
    *("learner.learning_rate", "learner.problems_per_update", "learner.max_staleness", "rollout.samples_per_problem"),
    *("rollout.max_response_tokens", "algorithm.preset", "reward.preset", "reward.custom", "eval.problems", "eval.n"),
    *("checkpoint.every", "run.report_to"),
)

TYPES = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "map"}

COMING_FROM = """# Coming from TRL, verl or OpenRLHF

Names of settings in other projects, their names here, and the differences. On the command line, a name in the
left column is answered with ours. [Settings](settings.md) has every setting. This page is generated from
`conf/coming_from.yaml`: `python -m conf.pages coming-from` prints it, and a test compares them.
"""


def settings_page() -> str:
    known = {item.path: item for item in settings(SweepCommandLine)}
    first = [
        (f"`{path}`", f"`{default(known[path]) or 'empty'}`", first_sentence(known[path].meaning)) for path in FIRST
    ]
    recipes = [(f"`{name}`", line) for name, line in recipe_lines().items()]
    parts = [SETTINGS, _table(("setting", "default", ""), first), "## Recipes\n", _table(("conf=", ""), recipes)]
    for section, members in groupby(settings(SweepCommandLine), key=lambda item: item.section):
        items = list(members)
        name = items[0].path.rpartition(".")[0]
        parts += [f"## {name}\n", about(section) + "\n"] if name else ["## Without a section\n"]
        for item in items:
            head = f"- **`{item.path}={default(item)}`**{' ↻' if item.resumable else ''} {item.meaning}  "
            parts += [f"{head}\n  {_type(item)}. Default: {item.source.removeprefix('our choice: ')}."]
        parts[-1] += "\n"
    return "\n".join(parts)


def _type(item: Setting) -> str:
    """Return a setting's type and bounds, such as `int | null`, 1 or more."""
    kinds = get_args(item.kind) if type(None) in get_args(item.kind) else (item.kind,)
    names = " | ".join(TYPES.get(get_origin(kind) or kind, "null") for kind in kinds)
    return f"`{names}`{bounds(item)}"


def coming_from_page() -> str:
    parts = [COMING_FROM]
    for project, names in table("coming_from").items():
        rows = [(f"`{name}`", f"`{ours}`" if ours else "not supported", said) for name, (ours, said) in names.items()]
        parts += [f"## {project}\n", _table((project, "here", "difference"), rows)]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (head, ("---",) * len(head), *rows)]
    return "".join(f"| {line} |\n" for line in lines)


PAGES = {"settings": settings_page, "coming-from": coming_from_page}


@command("pages", __doc__)
def main(arguments: list[str]) -> int:
    words, _ = words_and_options(arguments, {})
    if len(words) != 1 or words[0] not in PAGES:
        raise BadInput(f"{' '.join(words)}: name one page, {' or '.join(PAGES)}")
    print(PAGES[words[0]](), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

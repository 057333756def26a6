"""Print a page of docs/ that is made from the schema: `python -m conf.pages settings` or `… coming-from`."""

import sys
from collections.abc import Sequence
from itertools import groupby

from conf.arguments import words_and_options
from conf.catalogue import table
from conf.command import command
from conf.errors import BadInput
from conf.help import about, default, possible, recipe_lines
from conf.schema import ConfigWithSweep
from conf.settings import settings

SETTINGS = """# Settings

Every setting of a recipe or the command line, with its default. This page is generated: `python -m conf.pages settings`
prints it, from `conf/schema/`, and a test compares them. On the screen the same is `python launch/run.py help`, and
`python launch/run.py conf=NAME show=true` prints the values of a recipe.

A setting marked ↻ may have another value when a run is resumed.

## Recipes
"""

COMING_FROM = """# Coming from TRL, verl or OpenRLHF

Names of settings that you know from elsewhere, their names here, and what differs. On the command line a name of the
left column is answered with ours. [Settings](settings.md) has every setting. This page is generated from
`conf/coming_from.yaml`: `python -m conf.pages coming-from` prints it, and a test compares them.
"""


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    recipes = [(f"`{name}`", line) for name, line in recipe_lines().items()]
    parts = [SETTINGS, _table(("conf=", ""), recipes)]
    for section, members in groupby(settings(ConfigWithSweep), key=lambda item: item.section):
        items = list(members)
        name = items[0].path.rpartition(".")[0]
        parts += [f"## {name}\n", about(section) + "\n"] if name else ["## Without a section\n"]
        for item in items:
            head = f"- **`{item.path}={default(item)}`**{' ↻' if item.resumable else ''} {item.meaning}  "
            parts += [f"{head}\n  {possible(item)}. Default: {item.source}."]
        parts[-1] += "\n"
    return "\n".join(parts)


def coming_from_page() -> str:
    """Return docs/reference/coming-from.md."""
    parts = [COMING_FROM]
    for project, names in table("coming_from").items():
        rows = [(f"`{name}`", f"`{ours}`", difference) for name, (ours, difference) in names.items()]
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

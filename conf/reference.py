"""The settings reference, docs/reference/settings.md, from the schema: `python -m conf.reference` prints it."""

import sys
from itertools import groupby

from conf.command import command
from conf.help import about, default, possible, recipe_lines
from conf.schema import ConfigWithSweep
from conf.settings import Setting, settings

HEAD = """# Settings

Every setting of a recipe or the command line, with its default. This page is generated: `python -m conf.reference`
prints it, from `conf/schema/`, and a test compares them. On the screen the same is `python launch/run.py help`, and
`python launch/run.py conf=NAME show=true` prints what a recipe makes of it.

A setting marked ↻ may have another value when a run is resumed.
"""


def reference() -> str:
    """Return the page as Markdown."""
    parts = [HEAD, "## Recipes\n", "| conf= | |\n|---|---|"]
    parts[-1] += "".join(f"\n| `{name}` | {_cell(line)} |" for name, line in recipe_lines().items()) + "\n"
    for section, members in groupby(settings(ConfigWithSweep), key=lambda item: item.section):
        items = list(members)
        name = items[0].path.rpartition(".")[0]
        parts += [f"## {name}\n" if name else "## Without a section\n"]
        parts += [about(section) + "\n"] if name else []
        parts += ["\n".join(map(_entry, items)) + "\n"]
    return "\n".join(parts)


def _entry(item: Setting) -> str:
    resumable = " ↻" if item.resumable else ""
    meaning = " ".join(item.meaning.split())
    return f"- **`{item.path}={default(item)}`**{resumable} {meaning}  \n  {possible(item)}. Default: {item.source}."


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


@command("reference", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    """Print the page."""
    print(reference(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

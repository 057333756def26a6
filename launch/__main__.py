"""`microbudget COMMAND …`, or `python -m launch COMMAND …`: runs the commands of this folder from anywhere.

Recipes are those of the installed package; runs, sweeps and exports are written to the current directory.
"""

import sys
from importlib import import_module

from conf.command import WORDS, command
from conf.errors import BadInput, hint

COMMANDS = ("doctor", "run", "sweep", "evaluate", "report", "samples", "export", "push", "chat", "serve", "bundled")
"""Modules of this folder with a `main` that a person calls."""


@command("microbudget")
def main(arguments: list[str]) -> int:
    """Run a command. Return its exit code."""
    if not arguments:
        raise BadInput("no command given: start with `microbudget run conf=quickstart`; `microbudget help` lists all")
    name, *rest = arguments
    if name in WORDS:
        print("microbudget COMMAND …; `microbudget COMMAND help` explains it\n")
        for each in COMMANDS:
            print(f"  {each:<9} {str(import_module(f'launch.{each}').__doc__).partition('.')[0]}")
        return 0
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; {hint(name, COMMANDS)}all: {', '.join(COMMANDS)}")
    return int(import_module(f"launch.{name}").main(rest))


def from_the_shell() -> int:
    """Run the console script. Return the exit code."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(from_the_shell())

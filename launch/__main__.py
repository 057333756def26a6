"""`microbudget COMMAND …`, or `python -m microbudget_rl.launch COMMAND …`: runs all commands from anywhere.

Recipes are those of the installed package; runs, sweeps and exports are written to the current directory.
"""

import sys
from importlib import import_module
from importlib.metadata import version

from microbudget_rl.conf.command import WORDS, command
from microbudget_rl.conf.errors import BadInput, hint

IN_LAUNCH = ("doctor", "run", "sweep", "evaluate", "report", "samples", "export", "push", "chat", "serve", "bundled")
COMMANDS = {name: f"microbudget_rl.launch.{name}" for name in IN_LAUNCH} | {
    "check-adapter": "microbudget_rl.launch.check_adapter",
    "problems": "microbudget_rl.rewards.problems.__main__",
    "verify": "microbudget_rl.rewards.verify.__main__",
}
"""Modules with a `main` that a person calls, by command."""


@command("microbudget")
def main(arguments: list[str]) -> int:
    """Run a command. Return its exit code."""
    if not arguments:
        raise BadInput("no command given: start with `microbudget run conf=quickstart`; `microbudget help` lists all")
    name, rest = arguments[0].replace("_", "-"), arguments[1:]
    if name == "--version":
        print(f"microbudget-rl {version('microbudget-rl')}")
        return 0
    if name in WORDS:
        print("microbudget COMMAND …; `microbudget COMMAND help` explains it\n")
        for each, module in COMMANDS.items():
            print(f"  {each:<13} {str(import_module(module).__doc__).partition('.')[0]}")
        return 0
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; {hint(name, COMMANDS)}all: {', '.join(COMMANDS)}")
    return int(import_module(COMMANDS[name]).main(rest))


def from_the_shell() -> int:
    """Run the console script. Return the exit code."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(from_the_shell())

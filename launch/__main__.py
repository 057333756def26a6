"""`microbudget COMMAND …`, or `python -m microbudget_rl.launch COMMAND …`: runs all commands from anywhere.

Recipes are those of the installed package; runs, sweeps and exports are written to the current directory.
"""

import ast
import os
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.conf.command import WORDS, command
from microbudget_rl.conf.errors import BadInput, hint
from microbudget_rl.rewards.shipped import CALLER

IN_LAUNCH = ("doctor", "run", "sweep", "evaluate", "report", "samples", "export", "chat", "serve", "bundled")
COMMANDS = {name: f"microbudget_rl.launch.{name}" for name in IN_LAUNCH} | {
    "check-adapter": "microbudget_rl.launch.check_adapter",
    "plan": "microbudget_rl.launch.run",
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
            print(f"  {each:<13} {'The same as run with plan=true' if each == 'plan' else purpose(module)}")
        return 0
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; {hint(name, COMMANDS)}all: {', '.join(COMMANDS)}")
    if name == "plan" and "plan=true" not in rest:
        rest.append("plan=true")
    return int(import_module(COMMANDS[name]).main(rest))


def purpose(module: str) -> str:
    """Return the first sentence of a module's docstring without importing it: what it imports may not be installed."""
    source = Path(str(getattr(find_spec(module), "origin", ""))).read_text("utf-8")
    return str(ast.get_docstring(ast.parse(source))).partition(".")[0]


def from_the_shell() -> int:
    """Run the console script. Return the exit code."""
    import microbudget_rl.conf.first  # noqa: F401

    if caller := os.environ.pop(CALLER, ""):
        end_with(int(caller))
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(from_the_shell())

"""`microbudget COMMAND …`, or `python -m launch COMMAND …`: the commands of this folder from anywhere.

Recipes are those of the installed package; runs, sweeps and exports are written to the current directory.
"""

import sys
from importlib import import_module

from conf.command import WORDS, command
from conf.errors import BadInput
from conf.suggestions import hint

COMMANDS = {
    "doctor": "check whether this machine is fit for a run, and measure how fast it is",
    "run": "plan a run, start or resume it, and watch it to its end",
    "sweep": "run over ranks, seeds, models or any setting",
    "evaluate": "run benchmarks of a model, with or without an adapter",
    "report": "write the report of a run, of a sweep, or of several of them",
    "samples": "show responses before and after training, side by side",
    "export": "write a verified merged model, GGUF file or adapter",
    "push": "publish the model and a card made of its report on the Hugging Face Hub",
    "chat": "talk to base and trained model side by side",
    "serve": "start an OpenAI-compatible server of both",
    "embedded": "fetch the model of conf=quickstart",
}
"""What each command does. The module of the same name holds its `main`."""


@command("microbudget")
def main(arguments: list[str]) -> int:
    """Run a command. Return its exit code."""
    if not arguments:
        raise BadInput(
            "no command given: start with `microbudget run conf=quickstart`; `microbudget help` has the others"
        )
    name, *rest = arguments
    if name in WORDS:
        print("microbudget COMMAND …; `microbudget COMMAND help` says more\n")
        print("\n".join(f"  {name:<9} {about}" for name, about in COMMANDS.items()))
        return 0
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; {hint(name, COMMANDS)}all: {', '.join(COMMANDS)}")
    return int(import_module(f"launch.{name}").main(rest))


def from_the_shell() -> int:
    """Run the console script. Return the exit code."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(from_the_shell())

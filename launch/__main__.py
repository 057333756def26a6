"""`microbudget COMMAND …`, or `python -m launch COMMAND …`: the commands of this folder from anywhere.

Recipes are those of the installed package; runs, sweeps and exports are written to the current directory.
"""

import sys
from importlib import import_module

from conf.command import WORDS, command
from conf.errors import BadInput, hint

COMMANDS = {
    "doctor": ("launch.doctor", "whether this machine is fit for a run, and how fast it is"),
    "run": ("launch.run", "plan a run, start or resume it, and watch it to its end"),
    "sweep": ("launch.sweep", "runs over ranks, seeds, models or any setting"),
    "evaluate": ("launch.evaluate", "benchmarks of a model, with or without an adapter"),
    "report": ("launch.report", "the report of a run, of a sweep, or of several of them"),
    "samples": ("launch.samples", "answers before and after training, side by side"),
    "export": ("launch.export", "a merged model, a GGUF file or the adapter, verified"),
    "push": ("launch.push", "the model and a card made of its report, to the Hugging Face Hub"),
    "chat": ("launch.chat", "talk to base and trained model side by side"),
    "serve": ("launch.serve", "an OpenAI-compatible server of both"),
    "embedded": ("launch.embedded", "put the model of conf=quickstart where it is looked for"),
}
"""By name: the module whose `main` does it, and what that is."""


@command("microbudget")
def main(arguments: list[str]) -> int:
    """Do a command. Return its exit code."""
    if not arguments:
        raise BadInput(
            "no command given: start with `microbudget run conf=quickstart`; `microbudget help` has the others"
        )
    if arguments[0] in WORDS:
        print("microbudget COMMAND …; `microbudget COMMAND help` says more\n")
        print("\n".join(f"  {name:<9} {about}" for name, (_, about) in COMMANDS.items()))
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise BadInput(f"{name}: no such command; {hint(name, COMMANDS)}all: {', '.join(COMMANDS)}")
    return int(import_module(COMMANDS[name][0]).main(rest))


def from_the_shell() -> int:
    """Be the console script. Return the exit code."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(from_the_shell())

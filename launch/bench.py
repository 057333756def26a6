"""`python launch/bench.py NAME`: compare ours with an alternative on this machine; table and runs/bench/NAME.json."""

import sys
from collections.abc import Callable
from importlib import import_module

from conf.command import command
from conf.errors import BadInput
from conf.suggestions import nearest
from launch.benches.table import Result

BENCHES = ("end_to_end", "learner", "memory", "mismatch", "overlap", "verify")
"""Modules of launch/benches, each with a function `run`."""


@command("bench.py")
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    if len(arguments) != 1:
        raise BadInput(f"name one bench: {', '.join(BENCHES)}")
    (name,) = arguments
    if name not in BENCHES:
        raise BadInput(f"no bench {name!r}: there is {', '.join(nearest(name, BENCHES) or BENCHES)}")
    run: Callable[[], Result] = import_module(f"launch.benches.{name}").run
    result = run()
    result.show(name)
    print(f"Written to {result.write(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

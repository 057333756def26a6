"""Compare ours with an alternative on this machine; a table, and the same in runs/bench/NAME.json.

    python launch/bench.py NAME

Examples, all that there are:

    python launch/bench.py learner      # forward and backward passes against padded rows and full logits
    python launch/bench.py end_to_end   # whole updates against TRL's GRPOTrainer, which it installs into .venv-bench
    python launch/bench.py race         # ten minutes of the quickstart's task against TRL's GRPOTrainer, three seeds
    python launch/bench.py overlap      # rollouts and learner at the same time against taking turns
    python launch/bench.py verify       # verdicts against math-verify alone
    python launch/bench.py memory       # peaks of the real processes against the plan
    python launch/bench.py mismatch     # corrections of what engine and learner differ by: a hundred short runs
    python launch/bench.py ranks        # ranks and rules for alpha, each at its own rate: eighty short runs

They take 5 to 40 minutes on two cores; mismatch, ranks and race an hour or more.
"""

import sys
from collections.abc import Callable
from importlib import import_module

from conf.arguments import word_and_options
from conf.command import command
from conf.errors import BadInput
from conf.suggestions import nearest
from launch.benches.table import Result

BENCHES = ("end_to_end", "learner", "memory", "mismatch", "overlap", "race", "ranks", "verify")
"""Modules of launch/benches, each with a function `run`."""


@command("bench.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    name, _ = word_and_options(arguments, {}, f"one bench of {', '.join(BENCHES)}")
    if name not in BENCHES:
        raise BadInput(f"no bench {name!r}: there is {', '.join(nearest(name, BENCHES) or BENCHES)}")
    run: Callable[[], Result] = import_module(f"launch.benches.{name}").run
    result = run()
    result.show(name)
    print(f"Written to {result.write(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Compare this project with an alternative on this machine: a table, and the same in runs/bench/NAME.json.

    python -m tests.benches learner   # forward and backward passes against padded rows and full logits
    python -m tests.benches trl       # the quickstart's task against TRL's GRPOTrainer, and trl_updates
    python -m tests.benches trl_updates   # updates of rank 256 against TRL's GRPOTrainer
    python -m tests.benches overlap   # rollouts and learner at the same time against taking turns
    python -m tests.benches verify    # verdicts against math-verify alone
    python -m tests.benches memory    # peaks of the real processes against the plan

They take 5 to 40 minutes on two cores, trl two hours.
"""

import sys
from importlib import import_module

from microbudget_rl.conf.arguments import words_and_options
from microbudget_rl.conf.command import command
from microbudget_rl.conf.errors import BadInput, nearest

BENCHES = ("learner", "memory", "overlap", "trl", "trl_updates", "verify")
"""Modules of this folder, each with a function `run` that returns a Result."""


@command("tests.benches", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    name = " ".join(words_and_options(arguments, {})[0])
    if name not in BENCHES:
        raise BadInput(f"no bench {name!r}: there is {', '.join(nearest(name, BENCHES) or BENCHES)}")
    result = import_module(f"tests.benches.{name}").run()
    result.show(name)
    print(f"Written to {result.write(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Show what the base model and the trained model answered to held-out problems, side by side.

    python launch/samples.py RUN_FOLDER [show=worse|better|wrong|right|all]
        [verdict=correct|wrong|unparsable|timeout|crash] [limit=10]

Examples:

    python launch/samples.py runs/quickstart                       # what has changed
    python launch/samples.py runs/quickstart show=worse            # right before, wrong after
    python launch/samples.py runs/quickstart show=all verdict=unparsable limit=3

Without `show` what has changed: what became wrong first, and of that the problems that lost most. `verdict` is that of
the answer after training.
"""

import sys
from collections import Counter
from pathlib import Path

from rich.console import Console

from actors.messages import Status
from conf.arguments import run_and_options, whole
from conf.command import PlainConsole, command
from conf.errors import BadInput
from launch.after.screen import side_by_side
from launch.after.trained import find_run
from launch.reporting.tables import Pair, pairs_by_outcome

SHOWN = {
    "worse": "right before, wrong after",
    "better": "wrong before, right after",
    "wrong": "wrong both times",
    "right": "right both times",
}
"""Outcomes by their names on the command line."""

OPTIONS = {"show": (*SHOWN, "all"), "verdict": tuple(Status), "limit": ()}

LIMIT, MOST = "10", 10**6
"""Answers that are shown unless `limit` says otherwise, and at most."""


@command("samples.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    folder, given = run_and_options(arguments, OPTIONS)
    if not (limit := whole(given.get("limit", LIMIT), MOST)):
        raise BadInput(f"limit={given['limit']}: use a number from 1 to {MOST}")
    by_outcome = read_pairs(folder)
    chosen = choose(by_outcome, given.get("show", ""), given.get("verdict", ""))
    console = PlainConsole()
    show(chosen[:limit], console)
    if not chosen and "show" not in given:
        console.print("No answer has changed; show=all shows all of them")
    counts = "; ".join(f"{len(by_outcome[outcome])} {outcome}" for outcome in SHOWN.values())
    console.print(f"Shown {min(len(chosen), limit)} of {len(chosen)}; of all answers: {counts}")
    return 0


def read_pairs(folder: Path) -> dict[str, list[Pair]]:
    """Return the answers of a run before and after training, by outcome. Raises BadInput if it has not both."""
    run = find_run(folder)
    before, after = run.samples("eval-base"), run.samples("eval-final")
    for name, rows in (("eval-base", before), ("eval-final", after)):
        if not rows:
            raise BadInput(f"the run in {folder} has no samples/{name}.jsonl: it comes with the evaluation at its end")
    return pairs_by_outcome(before, after)


def choose(by_outcome: dict[str, list[Pair]], shown: str, verdict: str) -> list[Pair]:
    """Return the answers of one outcome, all of them or what has changed, and after training of one verdict.

    What became wrong comes first, and problems that lost most before others.
    """
    gains = Counter(pair.after.problem for pair in by_outcome[SHOWN["better"]])
    gains.subtract(pair.after.problem for pair in by_outcome[SHOWN["worse"]])
    names = {"": ("worse", "better"), "all": tuple(SHOWN)}.get(shown, (shown,))
    return [
        pair
        for name in names
        for pair in sorted(by_outcome[SHOWN[name]], key=lambda pair: gains[pair.after.problem])
        if verdict in ("", pair.after.status)
    ]


def show(pairs: list[Pair], console: Console) -> None:
    """Print problem, gold answer, and both answers with their verdicts."""
    for pair in pairs:
        console.print(f"{pair.problem.strip()}\ngold: {pair.gold}")
        sides = {"base": pair.before, "trained": pair.after}
        verdicts = [f"{side.status}, {side.tokens} tokens, {side.finish_reason}" for side in sides.values()]
        console.print(side_by_side({name: side.response for name, side in sides.items()}, verdicts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

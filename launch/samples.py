"""Show the responses of the base model and of the trained model to held-out problems, side by side.

    python launch/samples.py RUN_FOLDER [show=worse|better|wrong|right|all]
        [verdict=correct|wrong|unparsable|timeout|crash] [limit=10] [checkpoint=latest|best|update-…]

Examples:

    python launch/samples.py runs/quickstart                       # the responses whose verdict has changed
    python launch/samples.py runs/quickstart show=worse            # right before, wrong after
    python launch/samples.py runs/quickstart show=all verdict=unparsable limit=3

One pair of responses per problem is shown: without `show`, those whose verdict changed, the more common change first.
`verdict` selects by the verdict after training. The trained model is the run's result; checkpoint=latest is its last.
"""

import sys
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.results import find_run
from microbudget_rl.actors.storage.checkpoints import target
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.arguments import run_and_options, whole
from microbudget_rl.conf.command import LAYOUT, PlainConsole, command
from microbudget_rl.conf.errors import BadInput, printable
from microbudget_rl.launch.reporting.tables import OUTCOMES, BeforeAfter, one_each, pairs_by_outcome

OPTIONS = {"show": ("changed", *OUTCOMES, "all"), "verdict": tuple(Status), "limit": (), "checkpoint": ()}

MOST = 10**6

STYLES = {"correct": "green", "wrong": "red"}
"""Colours of verdicts; all others are yellow."""


@command("samples.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, or 2 for bad input."""
    folder, given = run_and_options(arguments, OPTIONS)
    if not (limit := whole(given.get("limit", "10"), MOST)):
        raise BadInput(f"limit={given['limit']}: use a number from 1 to {MOST}")
    console, run = PlainConsole(), find_run(folder)
    trained = trained_samples(run, given["checkpoint"]) if "checkpoint" in given else "eval-final"
    samples = {name: run.samples(name) for name in ("eval-base", trained)}
    if missing := [name for name, rows in samples.items() if not rows]:
        raise BadInput(f"the run in {folder} has no samples/{missing[0]}.jsonl yet: an evaluation writes it; resume it")
    by_outcome = pairs_by_outcome(*samples.values())
    show = given.get("show", "changed")
    pairs = chosen(by_outcome, show, given.get("verdict"))
    for pair in pairs[:limit]:
        console.print(f"{pair.problem.strip()}\nreference answer: {pair.gold}")
        models = {"base": pair.before, "trained": pair.after}
        verdicts = [f"{row.status}, {row.tokens} tokens, {row.finish_reason}" for row in models.values()]
        console.print(side_by_side({name: row.response for name, row in models.items()}, verdicts))
    counts = "; ".join(f"{len(by_outcome[outcome])} {outcome}" for outcome in OUTCOMES.values())
    more = "" if pairs or show == "all" else ". Add show=all to see them"
    console.print(f"Shown {min(len(pairs), limit)} of {len(pairs)}; of all responses: {counts}{more}")
    return 0


def chosen(by_outcome: Mapping[str, list[BeforeAfter]], show: str, verdict: str | None = None) -> list[BeforeAfter]:
    """Return one pair of each problem. show: a key of OUTCOMES, changed or all. verdict: that after training."""
    if show not in OPTIONS["show"]:
        raise BadInput(f"show={show}: use one of {', '.join(OPTIONS['show'])}")
    outcomes = {"changed": ("worse", "better"), "all": tuple(OUTCOMES)}
    names = {OUTCOMES[name] for name in outcomes.get(show, (show,))}
    candidates = (pair for outcome, pairs in by_outcome.items() if outcome in names for pair in pairs)
    return one_each(pair for pair in candidates if verdict in (None, pair.after.status))


def trained_samples(run: RunRecord, checkpoint: str) -> str:
    """Return the name of the samples of a checkpoint. Raises BadInput for one that was not evaluated."""
    wanted = target(run.checkpoints.folder / checkpoint)
    for name in ("eval-final", "eval-last"):
        rows = run.samples(name)
        if wanted and rows and wanted == run.checkpoints.path_of(rows[0].version or 0).resolve():
            return name
    raise BadInput(
        f"checkpoint={checkpoint}: the run's result and its last one have samples; name one, or leave it out"
    )


def side_by_side(responses: Mapping[str, str], verdicts: Sequence[str] = ()) -> Table:
    """Return a table with a column per model: its response, and its verdict below."""
    table = Table(expand=True)
    for model in responses:
        table.add_column(model, ratio=1, overflow="fold")
    table.add_row(*(Text(printable(response, LAYOUT)) for response in responses.values()))
    if verdicts:
        table.add_section()
        table.add_row(*(Text(verdict, style=STYLES.get(verdict.split(",")[0], "yellow")) for verdict in verdicts))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The pass rates of the training problems, at first and at last."""

from collections.abc import Sequence

from actors.coordinator.ledger import HISTORY
from actors.coordinator.rules.pass_rates import histogram
from actors.storage.run_record import RunRecord
from actors.storage.state import PassRateRow
from launch.reporting.history import Run
from launch.reporting.tables import Table, problem_in
from launch.reporting.wording import count, many, percent, points, shorten

MOVERS = 10
"""Number of problems shown that moved most, each way."""

PROBLEM_CHARACTERS = 120


def tables(run: Run) -> list[Table]:
    """Return the histogram of the pass rates, and the problems that moved most each way."""
    if not run.pass_rates:
        return []
    first, last = histogram(row.first for row in run.pass_rates), histogram(row.rate for row in run.pass_rates)
    counts = [(name, count(number), count(last[name])) for name, number in first.items()]
    by_change = sorted(run.pass_rates, key=_change)
    moved = [row for row in by_change[: -MOVERS - 1 : -1] if _change(row) > 0]
    moved += [row for row in by_change[MOVERS - 1 :: -1] if _change(row) < 0]
    texts = _texts(run, moved)
    rows = [(texts[row.problem], percent(row.first, 0), percent(row.rate, 0), points(_change(row))) for row in moved]
    return [
        Table("Training problems by pass rate", ("", "at first", "at last"), counts, _note(run)),
        Table("The problems that moved most", ("problem", "at first", "at last", "change"), rows),
    ]


def _change(row: PassRateRow) -> float:
    return row.rate - row.first


def _note(run: Run) -> str:
    """Say how many problems were tried, and how many groups and tokens were of use."""
    counts = run.summary.ledger.counts
    useful, known = counts.get("tokens/useful", 0), sum(counts.get(name, 0) for name in HISTORY)
    idle = run.series("groups/zero_variance")[1]
    said = f"{many(len(run.pass_rates), 'problem')} tried; at first: in the first group or data.pass_rates."
    if idle and known:
        varied = percent(1 - sum(idle) / len(idle), 0)
        said += (
            f" {varied} of the groups in updates had variance, {percent(useful / known, 0)} of the tokens were useful."
        )
    return said


def _texts(run: Run, rows: Sequence[PassRateRow]) -> dict[str, str]:
    """Return the problems by id, or their ids if their prompts are not among the samples that were kept."""
    record, wanted, prompts = RunRecord(run.folder), {row.problem for row in rows}, dict[str, str]()
    for name in record.sampled_updates():
        if wanted <= prompts.keys():
            break
        prompts |= {row.problem: row.prompt for row in record.samples(name) if row.problem in wanted}
    problems = problem_in(set(prompts.values()))
    texts = {problem: problems[prompt] for problem, prompt in prompts.items()}
    return {row.problem: shorten(texts.get(row.problem, row.problem), PROBLEM_CHARACTERS) for row in rows}

"""The pass rates of the training problems, at first and at last."""

from collections.abc import Sequence

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
    note = f"{many(len(run.pass_rates), 'problem')} tried; at first: in their first group, or in data.pass_rates."
    by_change = sorted(run.pass_rates, key=_change)
    moved = [row for row in by_change[: -MOVERS - 1 : -1] if _change(row) > 0]
    moved += [row for row in by_change[MOVERS - 1 :: -1] if _change(row) < 0]
    texts = _texts(run, moved)
    rows = [(texts[row.problem], percent(row.first, 0), percent(row.rate, 0), points(_change(row))) for row in moved]
    return [
        Table("Training problems by pass rate", ("", "at first", "at last"), counts, note),
        Table("The problems that moved most", ("problem", "at first", "at last", "change"), rows),
    ]


def _change(row: PassRateRow) -> float:
    return row.rate - row.first


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

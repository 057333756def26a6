"""The pass rates of the training problems, at first and at last."""

from collections.abc import Sequence

from actors.coordinator.rules.pass_rates import histogram, moved
from actors.storage.state import PassRateRow
from launch.reporting.history import Run
from launch.reporting.tables import Table, problem_in
from launch.reporting.wording import count, many, percent, points, shorten

PROBLEM_CHARACTERS = 120


def tables(run: Run) -> list[Table]:
    """Return the histogram of the pass rates, and the problems that moved most each way."""
    if not run.pass_rates:
        return []
    first, last = histogram(row.first for row in run.pass_rates), histogram(row.rate for row in run.pass_rates)
    counts = [(name, count(number), count(last[name])) for name, number in first.items()]
    note = f"{many(len(run.pass_rates), 'problem')} tried; at first: in their first group."
    texts = _texts(most := moved(run.pass_rates))
    rows = [(texts[row.problem], percent(row.first, 0), percent(row.rate, 0), points(row.change)) for row in most]
    return [
        Table("Training problems by pass rate", ("", "at first", "at last"), counts, note),
        Table("The problems that moved most", ("problem", "at first", "at last", "change"), rows),
    ]


def _texts(rows: Sequence[PassRateRow]) -> dict[str, str]:
    """Return the problems by id, or their ids where the prompt is not known."""
    problems = problem_in({row.prompt for row in rows if row.prompt})
    return {row.problem: shorten(problems.get(row.prompt, row.problem), PROBLEM_CHARACTERS) for row in rows}

"""The sources of a mixture in a run's report."""

from collections.abc import Callable
from statistics import fmean

from conf.catalogue import find_benchmark
from launch.reporting.history import Run
from launch.reporting.tables import Table
from launch.reporting.wording import count, decimal, percent

FORMS: dict[str, Callable[[float], str]] = {
    "pass_rate": percent,
    "mean_length": decimal,
    "zero_variance": percent,
    "unparsable": decimal,
}


def table(run: Run) -> Table:
    """Return the table with a row per source of a mixture; empty without one."""
    rows = []
    for each in run.config.get("data.mixture") or []:
        name = each["name"] or find_benchmark(each["source"]).name
        cells = [name, f"{each['weight']:g}", count(sum(run.series(f"source/{name}/groups")[1]))]
        for key, form in FORMS.items():
            values = run.series(f"source/{name}/{key}")[1] or [0.0]
            size = max(len(values) // 4, 1)
            cells.append(f"{form(fmean(values[:size]))} → {form(fmean(values[-size:]))}")
        rows.append(tuple(cells))
    head = ("source", "weight", "groups", "pass rate", "length, tokens", "no variance", "unparsable per update")
    return Table("Sources", head, rows, "In training: from the first to the last quarter of a source's updates.")

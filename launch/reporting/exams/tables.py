"""The paper's tables with the results of a sweep, each figure of ours beside the paper's."""

from collections.abc import Sequence

from actors.evaluation.statistics import Mean
from launch.reporting.exams.gains import gain
from launch.reporting.exams.paper import PAPER, change, figure, model
from launch.reporting.exams.results import ModelResults
from launch.reporting.history import Sweep
from launch.reporting.seeds import over_seeds
from launch.reporting.tables import Cells, Table
from launch.reporting.wording import MISSING, decimal, points

PRINTED = "paper"
"""Heading of the paper's figures."""


def title(benchmark: str) -> str:
    return str(PAPER["names"].get(benchmark, benchmark))


def within(mean: Mean | None, digits: int = 1) -> str:
    """Write a mean of fractions in percent, with its interval."""
    if mean is None:
        return MISSING
    ends = [decimal(end * 100, digits) for end in mean.interval or ()]
    return decimal(mean.value * 100, digits) + (f" ({' to '.join(ends)})" if ends else "")


def passed(sweep: Sweep, results: Sequence[ModelResults]) -> list[Table]:
    """Return Table 1: pass@k of the base models and of the trained policies, one table per benchmark."""
    return [_of_benchmark(sweep, results, benchmark) for benchmark in sweep.benchmarks]


def _of_benchmark(sweep: Sweep, results: Sequence[ModelResults], benchmark: str) -> Table:
    printed = any("base" in model(of.path) for of in results) and benchmark in PAPER["names"]
    rows: list[Cells] = []
    for of in results:
        base = of.base.get(benchmark)
        levels = {"base": [base.level(k) if base else None for k in sweep.pass_at]}
        levels |= {each.label: [each.level(benchmark, k) for k in sweep.pass_at] for each in of.shown}
        for number, (label, known) in enumerate(levels.items()):
            row = "trained" if number else "base"
            cells = [
                (within(each), figure(of.path, row, benchmark, k)) for k, each in zip(sweep.pass_at, known, strict=True)
            ]
            rows.append(("" if number else of.name, label, *_flat(cells, printed)))
    counts = {of.base[benchmark].known.problems for of in results if benchmark in of.base}
    size = f": {' or '.join(map(str, sorted(counts)))} problems, {sweep.n} samples of each" if counts else ""
    head = ("model", "policy", *_flat([(f"pass@{k}, %", PRINTED) for k in sweep.pass_at], printed))
    return Table(f"{title(benchmark)}{size}", head, rows)


def _flat(cells: Sequence[tuple[str, str]], printed: bool) -> list[str]:
    return [part for cell in cells for part in (cell if printed else cell[:1])]


def chosen(results: Sequence[ModelResults]) -> str:
    """Say how the trained policies in the tables were chosen, and what the intervals are over."""
    over = "Intervals are over seeds where these differ, else over problems."
    if none := [of.name for of in results if not of.chosen]:
        rest = "" if len(none) == len(results) else f" for {', '.join(none)}"
        return f"Without validation nothing was chosen{rest}: all settings are shown. {over}"
    going = any(not run.summary.result for of in results for each in of.trained for run in each.repeats.runs)
    return (
        "Trained: the setting with the best mean pass@1 on the selection problems, in which no benchmark has a part."
        f"{' It may change, since some runs have no result yet.' if going else ''} {over}"
    )


def entropies(results: Sequence[ModelResults]) -> Table:
    """Return Table 2: change of the mean token entropy by rank."""
    ranks = sorted({each.rank for of in results for each in of.trained})
    printed = any("entropy" in model(of.path) for of in results)
    rows = []
    for of in results:
        cells = []
        for rank in ranks:
            changes = [change for each in of.trained if each.rank == rank for change in each.entropy_changes]
            theirs = model(of.path).get("entropy", {}).get(rank)
            paper = MISSING if theirs is None else decimal(theirs, sign="+")
            cells.append((_signed(over_seeds(changes)) if changes else MISSING, paper))
        rows.append((of.name, *_flat(cells, printed)))
    head = ("model", *_flat([(f"rank {rank}, %", PRINTED) for rank in ranks], printed))
    note = (
        "Mean over the tokens of the policy's own responses, over the whole vocabulary: the last tenth of the updates"
        " against the first tenth. Intervals are over seeds; one seed has none."
    )
    return Table("Change of the mean token entropy", head, rows, note)


def _signed(mean: Mean) -> str:
    ends = " to ".join(points(end) for end in mean.interval or ())
    return points(mean.value) + (f" ({ends})" if ends else "")


def gaps(sweep: Sweep, results: Sequence[ModelResults]) -> Table:
    """Return the gap between pass@1 and the largest pass@k of each base model beside what training gave in pass@1."""
    most = sweep.pass_at[-1]
    printed = any("base" in model(of.path) for of in results)
    rows: list[Cells] = []
    for of in results:
        for number, benchmark in enumerate(sweep.benchmarks):
            base = of.base.get(benchmark)
            ends = (base.level(1), base.level(most)) if base else (None, None)
            gap = points(ends[1].value - ends[0].value) if ends[0] and ends[1] else MISSING
            found = gain([of], only=[benchmark])
            given, basis = (_signed(found.difference), found.basis) if found else (MISSING, MISSING)
            room = change(of.path, ("base", 1), ("base", most), benchmark)
            gained = change(of.path, ("base", 1), ("trained", 1), benchmark)
            cells = _flat([(gap, room), (given, gained)], printed)
            rows.append(("" if number else of.name, title(benchmark), *cells, basis))
    columns = [(f"base, pass@1 to @{most}", PRINTED), ("gain in pass@1", PRINTED)]
    note = "In percentage points. The paper takes the gap of a base model as a sign of something that RL can amplify."
    return Table(
        "Gap of the base model, and gain", ("model", "benchmark", *_flat(columns, printed), "from"), rows, note
    )

"""The paper's tables with the results of a sweep, each figure of ours beside the paper's."""

from collections.abc import Callable, Sequence

from actors.evaluation.statistics import Mean
from launch.reporting.exams.gains import Models, gain
from launch.reporting.exams.paper import PAPER, change, figure, model, short_name
from launch.reporting.exams.results import level
from launch.reporting.history import MODEL, Sweep
from launch.reporting.run_conclusion import reinforcement
from launch.reporting.seeds import over_seeds
from launch.reporting.tables import Cells, Table
from launch.reporting.wording import MISSING, decimal, points

PRINTED = "paper"
"""Heading of the paper's figures."""


def title(benchmark: str) -> str:
    return str(PAPER["names"].get(benchmark, benchmark))


def within(mean: Mean | None, written: Callable[[float], str]) -> str:
    """Write a mean with its interval."""
    if mean is None:
        return MISSING
    return written(mean.value) + (f" ({' to '.join(map(written, mean.interval))})" if mean.interval else "")


def passed(sweep: Sweep, results: Models) -> list[Table]:
    """Return Table 1: pass@k of the base models and of the trained policies, one table per benchmark."""
    tables = []
    for benchmark in sweep.benchmarks:
        rows: list[Cells] = []
        for of in results:
            exams = {"base": [of.base], **{each.label: [*each.exams.values()] for each in of.shown}}
            for label, own in exams.items():
                row = "base" if label == "base" else "trained"
                levels = [within(level(own, benchmark, k), lambda share: decimal(100 * share)) for k in sweep.pass_at]
                theirs = [figure(of.name, row, benchmark, k) for k in sweep.pass_at]
                rows.append((of.name if row == "base" else "", label, *_beside(levels, theirs, results)))
        counts = {len(of.base[benchmark][1]) for of in results if benchmark in of.base}
        size = f": {' or '.join(map(str, sorted(counts)))} problems, {sweep.n} samples of each" if counts else ""
        head = _beside([f"pass@{k}, %" for k in sweep.pass_at], [PRINTED] * len(sweep.pass_at), results)
        tables.append(Table(f"{title(benchmark)}{size}", ("model", "policy", *head), rows))
    return tables


def _beside(ours: Sequence[str], theirs: Sequence[str], results: Models) -> Cells:
    """Return our cells, each with the paper's after it if the paper has one of the models."""
    known = any("base" in model(of.name) for of in results)
    return tuple(cell for pair in zip(ours, theirs, strict=True) for cell in (pair if known else pair[:1]))


def chosen(results: Models) -> str:
    """Say how the trained policies in the tables were chosen, and what the intervals are over."""
    said = "Trained: the setting with the best mean pass@1 on the selection problems, in which no benchmark has a part."
    if none := [of.name for of in results if not of.chosen]:
        said = f"Without validation nothing was chosen for {', '.join(none)}: all settings are shown."
    elif any(len(each.validations) < len(each.runs) for of in results for each in of.trained):
        said += " It may change, since some runs have no result yet."
    return f"{said} Intervals are over seeds or over problems, whichever is wider."


def entropies(results: Models) -> Table:
    """Return Table 2: change of the mean token entropy by rank."""
    ranks = sorted({each.rank for of in results for each in of.trained})
    rows: list[Cells] = []
    for of in results:
        changes = [of.entropy_changes(rank) for rank in ranks]
        printed = [model(of.name).get("entropy", {}).get(rank) for rank in ranks]
        theirs = [MISSING if change is None else decimal(change, sign="+") for change in printed]
        ours = [within(over_seeds(each) if each else None, points) for each in changes]
        rows.append((of.name, *_beside(ours, theirs, results)))
    note = (
        "Mean over the tokens of the policy's own responses, over the whole vocabulary: the last tenth of the updates"
        " against the first tenth. Intervals are over seeds; one seed has none."
    )
    head = _beside([f"rank {rank}, %" for rank in ranks], [PRINTED] * len(ranks), results)
    return Table("Change of the mean token entropy", ("model", *head), rows, note)


def gaps(sweep: Sweep, results: Models) -> Table:
    """Return the gap between pass@1 and the largest pass@k of each base model beside what training gave in pass@1."""
    most = sweep.pass_at[-1]
    rows: list[Cells] = []
    for of in results:
        for number, benchmark in enumerate(sweep.benchmarks):
            first, last = (level([of.base], benchmark, k) for k in (1, most))
            found = gain([of], only=[benchmark])
            ours = [points(last.value - first.value) if first and last else MISSING, within(found and found[0], points)]
            ends = (("base", 1), ("base", most)), (("base", 1), ("trained", 1))
            theirs = [change(of.name, start, end, benchmark) for start, end in ends]
            rows.append(("" if number else of.name, title(benchmark), *_beside(ours, theirs, results)))
    head = _beside([f"base, pass@1 to @{most}", "gain in pass@1"], [PRINTED] * 2, results)
    note = "In percentage points. The paper takes the gap of a base model as a sign of something that RL can amplify."
    return Table("Gap of the base model, and gain", ("model", "benchmark", *head), rows, note)


def signals(sweep: Sweep) -> Table:
    """Return what the doctor says of each base model on the training problems, beside what training gave."""
    rows: list[Cells] = []
    for path, signal in sweep.signals.items():
        first, last, useful = (signal.figures[name] for name in ("pass@1", "pass@n", "useful"))
        effects = [reinforcement(run) for run in sweep.runs if run.settings.get(MODEL) == path]
        rises = sorted(found.difference.value for found in effects if found)
        rise = " to ".join(dict.fromkeys(map(points, (rises[0], rises[-1])))) if rises else MISSING
        *passed, groups = (within(share, lambda share: decimal(100 * share)) for share in (first, last, useful))
        rows.append((short_name(path), *passed, points(last.value - first.value), groups, signal.verdict, rise))
    n = " or ".join(sorted({str(signal.n) for signal in sweep.signals.values()}))
    head = ("model", "pass@1, %", f"pass@{n}, %", "gap, points", "useful groups, %", "verdict", "rise, points")
    note = "Rise: held-out pass@1 after RL minus before, from the lowest to the highest of the model's runs."
    return Table("The doctor's signal before training, and the rise", head, rows, note)

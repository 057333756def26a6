"""The tables of a sweep's report."""

import json

from launch.reports.answer import named, place
from launch.reports.comparison import (
    LEARNING_RATE,
    Mean,
    axis_name,
    best_of,
    contrasts,
    entropy_of,
    groups,
    on_probe,
    question,
)
from launch.reports.health import flags
from launch.reports.history import Cell, Row, Run, Sweep
from launch.reports.paper import KS, results_for
from launch.reports.tables import OVER_UPDATES, PROBED, SIDES, Table, conditions, dropped, settings
from launch.reports.verdict import change
from launch.reports.wording import MISSING, SPACE, figure, p_value, percent, points, shorten, signed, span, time

LINE_CHARACTERS = 400
"""Of what is told of a single run."""


def cells(sweep: Sweep) -> Table:
    """Every run. The first column is its name."""
    head = ("run", *map(axis_name, sweep.axes), "seed", "final pass@1", "95 %", "rise, points", "95 %", "updates")
    probed = on_probe(sweep)
    rows = tuple(
        (
            cell.name,
            *(figure(cell.settings[axis]) for axis in sweep.axes),
            str(cell.seed),
            *_result(cell),
            MISSING if (found := entropy_of(cell, probed)) is None else signed(found * 100, 1),
            _time(cell.run),
            cell.status.replace("_", " "),
        )
        for cell in sweep.cells
    )
    return Table("All runs", (*head, "entropy, %", "time", "status"), rows)


def _time(run: Run | None) -> str:
    """What a run has spent of its budget."""
    if run is None or not run.budget_s:
        return MISSING if run is None else time(run.spent_s)
    spent, budget = time(run.spent_s), time(run.budget_s)
    number, _, unit = spent.partition(SPACE)
    return f"{number if budget.endswith(f'{SPACE}{unit}') else spent} of {budget}"


def concerns(sweep: Sweep) -> Table | None:
    """What is not well with the runs, each in a line."""
    rows = []
    for cell in sweep.cells:
        said = [cell.reason]
        if cell.run:
            found = [flag for flag in flags(cell.run) if flag.level != "good"]
            said = [f"{flag.title}: {flag.detail}" if flag.level == "bad" else flag.title for flag in found]
        if any(said):
            rows.append((cell.name, shorten("; ".join(said), LINE_CHARACTERS)))
    return Table("What to know of single runs", ("run", "flags"), tuple(rows)) if rows else None


def shared(sweep: Sweep) -> list[tuple[str, str]]:
    """Settings and versions that all runs have."""
    told = [
        [*settings(cell.run), *(cell.run.summary.get("versions") or {}).items()] for cell in sweep.cells if cell.run
    ]
    return [each for each in told[0] if all(each in of_run for of_run in told)] if told else []


def _result(cell: Cell) -> tuple[str, ...]:
    run = cell.run
    if run is None:
        return (MISSING,) * 5
    updates = str(len(run.rows))
    found = change(run)
    if found is None:
        final = run.final
        return (
            (percent(final["pass@1"]), span(final["ci95"]), MISSING, MISSING, updates)
            if final
            else (
                *(MISSING,) * 4,
                updates,
            )
        )
    rise = points(found.difference), span(found.interval)
    return percent(found.after.value), span(found.after.interval), *rise, updates


def means(sweep: Sweep) -> Table | None:
    """Over seeds, for every combination of settings."""
    rows = []
    for group in groups(sweep):
        final, entropy = group.final, group.entropy
        rows.append(
            (
                *(figure(group.settings[axis]) for axis in sweep.axes),
                percent(final.value) if final else MISSING,
                span(final.interval) if final else MISSING,
                final.basis if final else f"0 of {len(group.cells)}",
                _entropy(entropy),
            )
        )
    if not sweep.axes:
        return None
    head = (*map(axis_name, sweep.axes), "final pass@1", "95 %", "from", "entropy, %")
    return Table("Means over seeds", head, tuple(rows))


def _entropy(mean: Mean | None) -> str:
    if mean is None:
        return MISSING
    return signed(mean.value * 100, 1) + (f" ({span(mean.interval)})" if mean.interval else "")


def comparisons(sweep: Sweep) -> Table | None:
    """Every two values of the axis in question."""
    rows = [
        (
            f"{named(contrast, contrast.high)} less {named(contrast, contrast.low)}",
            place(contrast).removeprefix("at "),
            points(contrast.difference),
            span(contrast.interval),
            MISSING if contrast.p is None else p_value(contrast.p).removeprefix("p ").removeprefix("= "),
            contrast.basis,
        )
        for contrast in contrasts(sweep)
    ]
    name = axis_name(str(question(sweep)))
    head = (name, "at", "points", "95 %", "p, corrected", "from")
    kept = [number for number in range(len(head)) if number != 1 or any(row[1] for row in rows)]
    told = tuple(tuple(row[number] for number in kept) for row in rows)
    return (
        Table(f"Final pass@1 of every two values of the {name}", tuple(head[n] for n in kept), told) if rows else None
    )


def best_rates(sweep: Sweep) -> Table | None:
    """The best learning rate of every value of the axis in question."""
    axis = question(sweep)
    if axis is None or axis == LEARNING_RATE or LEARNING_RATE not in sweep.axes:
        return None
    others = [name for name in sweep.axes if name not in (axis, LEARNING_RATE)]
    done = [group for group in groups(sweep) if group.final]
    rows = []
    for kept in dict.fromkeys(tuple(group.settings[name] for name in others) for group in done):
        same = [group for group in done if tuple(group.settings[name] for name in others) == kept]
        for best in best_of(same, sweep.axes, axis):
            mean = best.final
            assert mean is not None
            measured = (percent(mean.value), span(mean.interval), mean.basis)
            rows.append((*map(figure, kept), *(figure(best.settings[key]) for key in (axis, LEARNING_RATE)), *measured))
    head = (*map(axis_name, others), axis_name(axis), "best learning rate", "final pass@1", "95 %", "from")
    return Table(f"Best learning rate of each {axis_name(axis)}", head, tuple(rows)) if rows else None


def entropy(sweep: Sweep) -> list[Table]:
    """The paper's second table for each model, this sweep beside the paper."""
    tables = []
    note = f"Here {PROBED if on_probe(sweep) else OVER_UPDATES}; 95 % over seeds."
    models = dict.fromkeys(str(cell.run.config.get("model.path", "")) for cell in sweep.cells if cell.run)
    for model in models:
        paper = results_for(model)
        measured: dict[str, dict[int, str]] = {}
        for group in groups(sweep):
            run = next((cell.run for cell in group.cells if cell.run), None)
            if run and str(run.config.get("model.path", "")) == model and group.entropy:
                rest = {k: v for k, v in group.settings.items() if k not in ("lora.rank", "model.path")}
                row = ", ".join(f"{axis_name(key)} {figure(value)}" for key, value in rest.items()) or "here"
                measured.setdefault(row, {})[int(run.config.get("lora.rank", 0))] = _entropy(group.entropy)
        ranks = sorted({rank for row in measured.values() for rank in row} | set(paper.entropy if paper else ()))
        rows = [(name, *(row.get(rank, MISSING) for rank in ranks)) for name, row in measured.items()]
        if paper:
            rows.append(("paper", *(signed(paper.entropy[r], 1) if r in paper.entropy else MISSING for r in ranks)))
        if measured:
            head = ("", *(f"r = {rank}" for rank in ranks))
            tables.append(Table(f"Change of entropy, % by rank: {model}", head, tuple(rows), note))
    return tables


def benchmarks(sweep: Sweep) -> list[Table]:
    """Benchmarks of launch/evaluate.py, the runs among each other and beside the paper."""
    tables = []
    papers = {str(cell.run.config.get("model.path", "")): None for cell in sweep.cells if cell.run}
    for name, judged in _judged(sweep).items():
        rows = []
        for cell, evaluation, benchmark in judged:
            cap = (evaluation.get("protocol") or {}).get("max_response_tokens")
            for key, side in SIDES.items():
                if values := benchmark.get(key):
                    shown = (percent((values.get(f"pass@{k}") or {}).get("value")) for k in KS)
                    size = (benchmark.get("problems"), values.get("n"), cap)
                    rows.append((f"{cell.name}, {side}", *map(figure, size), *shown))
        for paper in filter(None, map(results_for, papers)):
            for side, published in paper.benchmarks.get(name.lower(), {}).items():
                values = (percent(value / 100) for value in published)
                rows.append((f"paper, {side}, {paper.model}", *(MISSING,) * 3, *values))
        head = ("", "problems", "n", "cap, tokens", *(f"@{k}" for k in KS))
        tables.append(Table(name, head, tuple(rows), _protocols(judged)))
    return tables


Judged = list[tuple[Cell, Row, Row]]
"""Cells with their evaluation and what it says of one benchmark."""


def _judged(sweep: Sweep) -> dict[str, Judged]:
    """By benchmark."""
    found: dict[str, Judged] = {}
    for cell in sweep.cells:
        evaluation = cell.run.evaluation if cell.run else {}
        for benchmark in evaluation.get("benchmarks") or ():
            found.setdefault(str(benchmark["name"]), []).append((cell, evaluation, benchmark))
    return found


OF_ITS_OWN = ("model", "adapter", "seed", "limit")
"""Parts of a protocol, or beginnings of their names, that say who was judged, or are told by the number of problems."""


def _protocols(judged: Judged) -> str:
    """How a benchmark's rows were drawn, and wherein they cannot be compared."""
    ways: dict[str, set[str]] = {}
    for _, evaluation, benchmark in judged:
        of_benchmark = {key: benchmark.get(key) for key in ("source", "problems", "n")}
        for key, value in {**(evaluation.get("protocol") or {}), **of_benchmark}.items():
            if not key.startswith(OF_ITS_OWN):
                ways.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
    differing = sorted(key for key, values in ways.items() if len(values) > 1)
    _, evaluation, benchmark = judged[0]
    if differing:
        return f"Not comparable as they stand: the rows differ in {', '.join(differing)}."
    return " ".join(filter(None, (conditions(evaluation), dropped(benchmark))))

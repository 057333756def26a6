"""The plan of a sweep: every run and exam, and the time and money that all of them take on one or more GPUs."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.formats import counted, duration
from conf.catalogue import HELD_OUT, find_benchmarks
from conf.settings import changed
from launch.plan.estimate import Estimate
from launch.plan.options import estimate_all
from launch.plan.plan import FILE, Plan
from launch.sweep_runs.grid import Grid
from launch.sweep_runs.jobs import Exam, Exams, Job
from launch.sweep_runs.view import table
from rewards.problems.loading import read_benchmark

FAULT = "bold red"

Seconds = dict[Job, float]
"""Expected seconds by job; none for an exam whose time is not known."""


def plans_table(grid: Grid, exams: Exams, plans: dict[str, Plan], lanes: int) -> RenderableType:
    """Return the plan of every run on its lane's part of the machine and of every exam, and their time and cost."""
    forecasts, sizes = estimate_all(plans), benchmark_sizes(grid, next(iter(plans.values())))
    samples = grid.settings.n * sum(size or 0 for size in sizes.values())
    seconds: Seconds = {run: plans[run.name].config.budget.seconds for run in grid.runs}
    seconds |= {run: found.spent_s for run in grid.runs if (found := forecasts[run.name])}
    timed = {exam: exam_seconds(plans[exam.run.name], samples) for exam in exams.all}
    seconds |= {exam: time_s for exam, time_s in timed.items() if time_s is not None}
    misfits, hopeless = [name for name, plan in plans.items() if not plan.fits], idle(forecasts)
    faults = f"{len(misfits)} of {len(plans)} do not fit. " if misfits else ""
    faults += f"{len(hopeless)} of {len(plans)} have too small a budget for one update. " if hopeless else ""
    conclusion = Text(faults or "All fit. ", FAULT if faults else "bold green")
    updates = sum(found.updates for found in forecasts.values() if found)
    said = [f"{len(plans)} runs on {_where(grid, plans, seconds, lanes)}, about {counted(updates, 'update')}"]
    if exams.bases:
        of = ", ".join(f"{name} ({'unknown, counted as 0' if size is None else size})" for name, size in sizes.items())
        who = f"{counted(len(exams.bases), 'base model')} and {counted(len(exams.of_run), 'result')}"
        said.append(f"Exams of {who} on top: {duration(_total(seconds, exams.all))} for the problems of {of}")
    if (price := plans[grid.runs[0].name].config.budget.price_per_hour) is not None:
        total = _total(seconds, seconds)
        said.append(f"In all {duration(total)}, {total / 3600 * price:,.2f} at {price:.2f} per hour")
    measured = dict.fromkeys(plan.calibration.of for plan in plans.values() if plan.calibration.of)
    source = f", corrected by measurements here: {'; '.join(measured)}" if measured else " alone"
    lines: list[RenderableType] = [conclusion + Text(said[0]), *map(Text, said[1:]), Text()]
    lines.append(_rows(grid, exams, plans, forecasts, seconds, {*misfits, *hopeless}))
    if plans[grid.runs[0].name].machine.gpus:
        lines += [Text(), _scaling(grid, exams, plans, seconds)]
    return Group(*lines, Text(f"Times are from rates and sizes{source}.", style="dim"))


def _rows(
    grid: Grid,
    exams: Exams,
    plans: Mapping[str, Plan],
    forecasts: Mapping[str, Estimate | None],
    seconds: Seconds,
    faulty: set[str],
) -> Table:
    """Return a row per base model and run. cost: of a run and its exam."""
    priced = plans[grid.runs[0].name].config.budget.price_per_hour is not None
    of_exams, of_money = ["exam"] * bool(exams.bases), ["cost"] * priced
    view = table("run", "memory", "budget", "per update", "updates", "evaluations", *of_exams, *of_money)

    def add(name: str, first: list[str], *jobs: Job, style: str = "") -> None:
        exam = [duration(seconds[job]) if job in seconds else "?" for job in jobs if isinstance(job, Exam)]
        price = plans[jobs[0].run.name if isinstance(jobs[0], Exam) else name].config.budget.price_per_hour or 0.0
        cost = [f"{price * _total(seconds, jobs) / 3600:,.2f}"] * priced
        view.add_row(name, *first, *exam, *cost, style=style)

    for base in exams.bases:
        add(base.name, [""] * 5, base)
    for run in grid.runs:
        plan, found, figures = plans[run.name], forecasts[run.name], ["", "", ""]
        if found:
            figures = [duration(found.update_s), f"{found.updates:,}", duration(2 * found.evaluate_s)]
        start = ["fits" if plan.fits else "does not fit", duration(plan.config.budget.seconds), *figures]
        exam = [exams.of_run[run.name]] if exams.bases else []
        add(run.name, start, run, *exam, style=FAULT if run.name in faulty else "")
    return view


def _where(grid: Grid, plans: Mapping[str, Plan], seconds: Seconds, lanes: int) -> str:
    """Say on what the runs are carried out, and how long they take."""
    machine, runs_s = plans[grid.runs[0].name].machine.name, _total(seconds, grid.runs)
    if lanes == 1:
        return f"{machine}: {duration(runs_s)} in all, one after another"
    longest = max(_total(seconds, grid.runs[number::lanes]) for number in range(lanes))
    return f"one {machine} each: {duration(runs_s)} in all, {lanes} at a time: {duration(longest)}"


def _scaling(grid: Grid, exams: Exams, plans: Mapping[str, Plan], seconds: Seconds) -> RenderableType:
    """Return hours and cost on several GPUs, a lane on each."""
    plan, all_runs = plans[grid.runs[0].name], len(grid.runs)
    numbers = sorted({*grid.simulate} or {1, max(len(exams.bases), 1), all_runs})
    price = plan.config.budget.price_per_hour
    view = table("GPUs", "until the end", *(["cost"] if price is not None else []))
    for number in numbers:
        used = min(number, all_runs)
        end_s = max(_total(seconds, exams.with_runs(grid.runs[lane::used])) for lane in range(used))
        cost = [] if price is None else [f"{price * number * end_s / 3600:,.2f}"]
        view.add_row(f"{number} × {plan.machine.name}", duration(end_s), *cost)
    return Group(Text("Side by side, with one GPU each; the cost is that of all until the last has ended:"), view)


def _total(seconds: Seconds, jobs: Iterable[Job]) -> float:
    return sum(seconds.get(job, 0.0) for job in jobs)


def benchmark_sizes(grid: Grid, plan: Plan) -> dict[str, int | None]:
    """Return the number of problems of each benchmark, without a network; None if it is not known.

    Raises BadInput for a file that cannot be read.
    """
    sizes: dict[str, int | None] = {}
    for each in find_benchmarks(grid.settings.benchmarks):
        size = each.problems
        if each.source == HELD_OUT:
            size = plan.config.eval.problems
        elif each.source.startswith(FILE):
            size = len(read_benchmark(each, plan.config.data, []))
        sizes[each.name] = size if size is None or grid.limit is None else min(size, grid.limit)
    return sizes


def exam_seconds(plan: Plan, samples: int) -> float | None:
    """Return the expected seconds of an exam with so many samples of one policy; None if no rates are known."""
    config = changed(plan.config, {"eval.problems": samples, "eval.n": 1})
    found = replace(plan, config=config, problems=None).estimate
    return found.start_s + found.evaluate_s if found else None


def idle(forecasts: dict[str, Estimate | None]) -> list[str]:
    """Return the runs whose budget is too small for an update."""
    return [name for name, expected in forecasts.items() if expected and not expected.updates]

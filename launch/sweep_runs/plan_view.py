"""The plan of a sweep: the GPU of every run, and the time and money that all jobs take on one or more."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from microbudget_rl.actors.formats import counted, duration, money
from microbudget_rl.actors.models.adapters import check_adapter
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import Machine, with_gpus
from microbudget_rl.launch.plan.measurements import plan_measured
from microbudget_rl.launch.plan.plan import Problems, count_problems
from microbudget_rl.launch.plan.view import FEW, FEWEST_UPDATES
from microbudget_rl.launch.session.admission import resolve_model
from microbudget_rl.launch.sweep_runs.jobs import SEED, Grid, Job
from microbudget_rl.rewards.pool import check_functions
from microbudget_rl.rewards.problems.loading import count

FAULT = "bold red"


def divide(machine: Machine, grid: Grid) -> list[Machine]:
    """Return the part of a machine that each worker has: a GPU, and an equal part of the rest. On a CPU, on a Ray
    cluster and for runs of several GPUs, one worker has all.
    """
    several = any(max(run.config.learner.world_size or 1, run.config.rollout.actors or 1) > 1 for run in grid.runs)
    count = 1 if several or os.environ.get("RAY_ADDRESS") else min(*map(len, (machine.cards, machine.cores, grid.runs)))
    if count <= 1:
        return [machine]
    memory = machine.host_memory and machine.host_memory // count
    each = len(machine.cores) // count
    parts = [with_gpus([machine.cards[n]], machine.cores[n * each : (n + 1) * each]) for n in range(count)]
    return [replace(part, host_memory=memory) for part in parts]


def plan_runs(grid: Grid, machines: Sequence[Machine]) -> None:
    """Plan every run on its worker's part of the machine and of the sweep's budget. Each of n has every n-th run."""
    total, count = grid.settings.seconds, len(machines)
    counted_problems = dict[str, Problems | None]()  # by the settings of runs that only differ in the seed
    for number, run in enumerate(grid.runs):
        if count > 1 and run.config.run.nvidia_mps == "auto":  # each service would see all GPUs
            run.set("run.nvidia_mps", "off")
        machine = machines[number % count]
        run.config = resolve_model(run.config, machine)
        if total is not None:
            run.config = changed(run.config, {"budget.minutes": total / len(grid.runs[::count]) / 60})
        check_functions(run.config.reward)
        alike = repr(changed(run.config, {"run.name": "any", SEED: 0}))
        if alike not in counted_problems:
            counted_problems[alike] = count_problems(run.config)
        plan = plan_measured(run.config, machine, grid.folder.parent)
        run.plan = replace(plan, problems=counted_problems[alike])
        if not run.record.finished():
            check_adapter(run.config)


@dataclass(frozen=True)
class SweepPlan:
    """The plans of all runs. workers: number of runs at a time on this machine."""

    grid: Grid
    workers: int

    @cached_property
    def sizes(self) -> dict[str, int | None]:
        """Number of problems of each benchmark, found without a network; None if it is not known."""
        asked, config = find_benchmarks(self.grid.settings.benchmarks), self.grid.runs[0].config
        return {each.name: count(each, config, self.grid.limit) for each in asked}

    @cached_property
    def seconds(self) -> dict[Job, float]:
        """Expected seconds of each job. An evaluation on the benchmarks has the pace of an evaluation in its run."""
        samples = self.grid.settings.n * sum(size or 0 for size in self.sizes.values())
        sizes: dict[Job, float] = {}
        for run in self.grid.runs:
            sizes[run] = run.plan.estimate.spent_s if run.plan.estimate else run.config.budget.seconds
        for job in (*self.grid.bases, *self.grid.evaluations):
            config = changed(job.run.plan.config, {"eval.problems": samples, "eval.n": 1})
            expected = replace(job.run.plan, config=config, problems=None).estimate
            sizes[job] = expected.start_s + expected.evaluate_s if expected else 0.0
        return sizes

    def total(self, jobs: Iterable[Job]) -> float:
        return sum(map(self.seconds.__getitem__, jobs))

    def cost(self, seconds: float, gpus: int = 1) -> list[str]:
        """Return the cost of so long, if the price is known."""
        price = self.grid.runs[0].config.budget.price_per_hour
        return [] if price is None else [money(price * gpus * seconds / 3600)]

    def shown(self) -> RenderableType:
        """Return the whole plan for the screen."""
        machine = self.grid.runs[0].plan.machine
        measured = dict.fromkeys(of for run in self.grid.runs if (of := run.plan.calibration.of))
        source = f", corrected by measurements here: {'; '.join(measured)}" if measured else " alone"
        note = Text(f"Times are from rates and sizes{source}.", style="dim")
        return Group(*self._summary(), Text(), self._rows(), *(self._scaling() if machine.gpus else ()), note)

    def _summary(self) -> list[Text]:
        runs, where = self.grid.runs, self.grid.runs[0].plan.machine.name
        misfits = [run for run in runs if not run.plan.fits]
        faults = f"{len(misfits)} of {len(runs)} do not fit. " if misfits else ""
        updates = [run.plan.estimate.updates for run in runs if run.plan.estimate]
        if few := [count for count in updates if count < FEWEST_UPDATES]:
            faults += f"{len(few)} of {len(runs)} hold {counted(max(few), 'update')} at most: {FEW}. "
        longest, way = max(self.total(runs[turn :: self.workers]) for turn in range(self.workers)), "one after another"
        if self.workers > 1:
            way, where = f"{self.workers} at a time: {duration(longest)}", f"one {where} each"
        about = counted(sum(updates), "update")
        said = f"{len(runs)} runs on {where}: {duration(self.total(runs))} in all, {way}, about {about}"
        lines = [Text(faults or "All fit. ", FAULT if faults else "bold green") + Text(said)]
        if self.grid.bases:
            sizes = ", ".join(f"{name} ({size or 'unknown, counted as 0'})" for name, size in self.sizes.items())
            who = f"{counted(len(self.grid.bases), 'base model')} and {counted(len(runs), 'result')}"
            top_s = self.total([*self.grid.bases, *self.grid.evaluations])
            lines.append(Text(f"Evaluations of {who} on top: {duration(top_s)} for the problems of {sizes}"))
        all_s = sum(self.seconds.values())
        if cost := self.cost(all_s):
            lines.append(Text(f"In all {duration(all_s)} of one GPU or machine, at a cost of {cost[0]}"))
        if len(self.grid.axes.get(SEED, ())) < 2:
            three_s = all_s + 2 * self.total([*runs, *self.grid.evaluations])
            sizes = "".join(f", at a cost of {each}" for each in self.cost(three_s))
            lines.append(Text(f"One seed decides no claim. With seeds=[0,1,2]: {duration(three_s)} in all{sizes}"))
        return lines

    def _rows(self) -> RenderableType:
        columns = ["benchmarks"] * bool(self.grid.bases) + ["cost"] * bool(self.cost(0))
        table = plain_table("run", "memory", "budget", "per update", "updates", "held-out", *columns)
        for base in self.grid.bases:
            table.add_row(base.name, *[""] * 5, duration(self.seconds[base]), *self.cost(self.seconds[base]))
        for run in self.grid.runs:
            evaluations, figures = run.evaluations, ["", "", ""]
            if estimate := run.plan.estimate:
                figures = [duration(estimate.update_s), f"{estimate.updates:,}", duration(estimate.evaluations_s)]
            more = [
                *(duration(self.seconds[each]) for each in evaluations),
                *self.cost(self.total([run, *evaluations])),
            ]
            cells = "fits" if run.plan.fits else "does not fit", duration(run.config.budget.seconds), *figures, *more
            good = run.plan.fits and (not estimate or estimate.updates >= FEWEST_UPDATES)
            table.add_row(run.name, *cells, style="" if good else FAULT)
        return table

    def _scaling(self) -> list[RenderableType]:
        """Return the hours and the cost with one run at a time on each of several GPUs."""
        runs, table = self.grid.runs, plain_table("GPUs", "until the end", *(["cost"] * bool(self.cost(0))))
        for gpus in sorted({*self.grid.simulate} or {1, max(len(self.grid.bases), 1), len(runs)}):
            end_s = sum(max(map(self.total, phase)) for phase in self.grid.phases(gpus))
            table.add_row(str(gpus), duration(end_s), *self.cost(end_s, gpus))
        cost = "; the cost is that of all until the last has ended" if self.cost(0) else ""
        return [Text(f"\nWith one run at a time on each GPU{cost}:"), table]


def plain_table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        words = name in ("run", "memory", "status", "benchmarks", "GPUs")
        table.add_column(name, no_wrap=name == "run", justify="left" if words else "right")
    return table

"""`python launch/sweep.py conf=NAME ranks=[8,64,256] seeds=[0,1,2] [key=[a,b] …] [key=value …]`: a grid of runs.

Every list is an axis, and every cell an ordinary run in a process and folder of its own. The same command again goes on
where the sweep was cut off.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from conf.errors import BadInput
from launch.plan.calibration import recall
from launch.plan.machine import Machine, beside_cluster, check_build, detect
from launch.plan.plan import Plan, make_plan, refusal
from launch.report import attempt
from launch.result import finished
from launch.session.failure import read, spent
from launch.session.resume import check_settings, lock, settle
from launch.sweeps.cells import FINISHED, Cell, Grid, Record, allowance, read_grid, rounds, standing
from launch.sweeps.lanes import RUN, Lane, held, lanes, part
from launch.sweeps.view import Line, describe, render, render_plans, results

POLL_S = 1.0

ORPHAN_S = 60.0
"""How long, besides `budget.grace_s`, a run is waited for that outlives the sweep that was killed over it."""


def main(arguments: Sequence[str], command: Sequence[str] = RUN) -> int:
    """The exit code: 0 all cells are finished, 1 some failed or halted, 2 bad input, 130 or 143 interrupted. command:
    what carries a cell out.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to end, no traceback
    console = Console()
    try:
        grid = read_grid(arguments)
        machines = machines_of(grid)
        roads = lanes([cell.config for cell in grid.cells], machines, command)
        plans = plan_cells(grid, machines, len(roads))
        if grid.cells[0].config.plan:
            if note := beside_cluster():
                console.print(note, soft_wrap=True, highlight=False, markup=False)
            console.print(render_plans(plans, len(roads)))
            return 0
        packages = {package.name for package in distributions()}
        for cell in grid.cells:
            plan = plans[cell.name]
            if not os.environ.get("RAY_ADDRESS"):  # a run surveys the cluster it joins
                refusal(plan)
                check_build(plan.config, plan.machine, packages)
            check_settings(plan.config, grid.folder / cell.name)
        with claimed(grid):
            return Sweep(grid, plans, roads, console).run()
    except BadInput as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return 2


def machines_of(grid: Grid) -> list[Machine]:
    """What each cell is to run on, by its `device`; its dtype is then settled."""
    detected = cache(detect)
    machines = [detected(cell.config.device) for cell in grid.cells]
    for cell, machine in zip(grid.cells, machines, strict=True):
        settle(cell.config, machine)
    return machines


def plan_cells(grid: Grid, machines: Sequence[Machine], count: int) -> dict[str, Plan]:
    """The plan of every cell on its lane's part of its machine, of so many, in which the sweep's budget is already
    shared out.
    """
    plans = {}
    for number, (cell, machine) in enumerate(zip(grid.cells, machines, strict=True)):
        config, own = cell.config, part(machine, number % count, count)
        if grid.settings.seconds is not None:
            config.budget.minutes = allowance(grid.settings.seconds, [], rounds(len(grid.cells), count)) / 60
        plans[cell.name] = make_plan(config, own, recall(config, own))
    return plans


@contextmanager
def claimed(grid: Grid) -> Iterator[None]:
    """Make the sweep's folder this process's own; raises BadInput if another has it, or if it cannot be written to."""
    if (descriptor := lock(grid.folder)) is None:
        raise BadInput(f"sweep {grid.name!r} is at work in another process: wait, or give sweep.name=OTHER")
    try:
        yield
    finally:
        os.close(descriptor)


class Sweep:
    """Cells on their way through the lanes; of n lanes each has every n-th cell."""

    def __init__(self, grid: Grid, plans: dict[str, Plan], roads: list[Lane], console: Console) -> None:
        self._grid = grid
        self._lanes = roads
        self._console = console
        self._record = Record(grid)
        self._queues = [list(grid.cells[number :: len(roads)]) for number in range(len(roads))]
        self._running: dict[int, Cell] = {}
        self._judged: dict[str, str] = {}
        self._received: list[int] = []
        self._passed_on = 0
        self._budgets = {name: plan.config.budget.seconds for name, plan in plans.items()}
        self._patience_s = ORPHAN_S + max(plan.config.budget.grace_s for plan in plans.values())
        self._started = time.monotonic()

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for cell in self._grid.cells:
            self._look_back(cell)
        self._record.write()
        live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            live.start()
        try:
            while self._turn():
                if live.is_started:
                    live.update(render(self._lines(), self._left()), refresh=True)
                time.sleep(POLL_S)
        finally:
            live.stop()
        self._console.print(results(self._lines()))
        report = attempt(self._grid.folder)
        self._console.print(f"Report         {report}", soft_wrap=True, highlight=False, markup=False)
        if self._received:
            return 128 + self._received[0]
        return 0 if all(status in FINISHED for status in self._record.status.values()) else 1

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)

    def _turn(self) -> bool:
        """Pass signals on, note which cells have ended, start others in their place; whether there is more to do."""
        for signalled in self._received[self._passed_on :]:
            self._passed_on += 1
            for lane in self._lanes:
                lane.signal(signalled)
        for number, lane in enumerate(self._lanes):
            if lane.busy and (end := lane.ended(self._folder(self._running[number]))):
                status, reason = end
                cell = self._running.pop(number)
                if status == "interrupted" and not self._received and self._judged.get(cell.name):
                    status, reason = "stopped_early", self._judged[cell.name]
                self._put(cell, status, reason)
            if not lane.busy and not self._received:
                self._start(number)
        for number, cell in self._running.items():
            self._judge(number, cell)
        return bool(self._running) or (any(self._queues) and not self._received)

    def _start(self, number: int) -> None:
        """Start the next cell of a lane that is not finished and has time left."""
        queue = self._queues[number]
        while queue:
            if held(self._folder(queue[0])) and time.monotonic() - self._started < self._patience_s:
                return  # the run of a sweep that was killed is still saving its work
            cell = queue.pop(0)
            self._look_back(cell)
            if self._record.status[cell.name] in FINISHED:
                continue
            arguments = list(cell.arguments)
            if not any(argument.startswith("dashboard.port=") for argument in arguments):
                arguments.append("dashboard.port=0")
            if self._grid.settings.seconds is not None:
                budget_s = self._budgets[cell.name] = self._share(number, cell)
                if spent(self._folder(cell)) >= budget_s:
                    continue
                arguments.append(f"budget.minutes={budget_s / 60:.4f}")
            self._running[number] = cell
            self._lanes[number].start(arguments, self._grid.folder / f"{cell.name}.log")
            self._put(cell, "running")
            return

    def _look_back(self, cell: Cell) -> None:
        """Learn what became of a cell that an earlier process of the sweep did not live to write down, or whose folder
        somebody has deleted, to have it done again.
        """
        status = self._record.status[cell.name]
        if status in FINISHED and not self._folder(cell).exists():
            self._put(cell, "pending", "its folder is gone")
        elif status not in FINISHED and (summary := finished(self._folder(cell))):
            self._put(cell, summary["status"], summary["reason"])
        elif status == "running":
            self._put(cell, "interrupted", "the sweep died")

    def _share(self, number: int, cell: Cell) -> float:
        """Budget of a cell out of the whole sweep's, in seconds."""
        assert self._grid.settings.seconds is not None
        waiting = [other for other in self._queues[number] if self._record.status[other.name] not in FINISHED]
        over = [other for other in self._cells(number) if other != cell and other not in waiting]
        turns = rounds(len(self._grid.cells), len(self._lanes))
        return allowance(self._grid.settings.seconds, [spent(self._folder(other)) for other in over], turns)

    def _judge(self, number: int, cell: Cell) -> None:
        """Half-way, once: end a cell that does far worse than the best of its model did."""
        stop_below = self._grid.settings.stop_below
        if stop_below is None or cell.name in self._judged or (own := self._standing(cell)) is None:
            return
        others = [other for other in self._grid.cells if other != cell and other.model == cell.model]
        best = max((found for other in others if (found := self._standing(other)) is not None), default=0.0)
        self._judged[cell.name] = ""
        if own < stop_below * best:
            self._judged[cell.name] = f"accuracy {own:.3f} half-way, where the best cell had {best:.3f}"
            self._lanes[number].signal(signal.SIGTERM)

    def _standing(self, cell: Cell) -> float | None:
        return standing(rows(self._folder(cell)))

    def _put(self, cell: Cell, status: str, reason: str | None = None) -> None:
        self._record.put(cell.name, status, reason)
        self._console.print(describe(self._line(cell)), soft_wrap=True, highlight=False, markup=False)

    def _line(self, cell: Cell) -> Line:
        folder, status = self._folder(cell), self._record.status[cell.name]
        latest = rows(folder)[-1:] or [{}]
        return Line(
            cell=cell.name,
            overrides=cell.overrides,
            status=status,
            reason=self._record.reason[cell.name],
            spent=spent(folder),
            budget=self._budgets[cell.name],
            updates=int(latest[0].get("update", 0)),
            accuracy=latest[0].get("reward/accuracy"),
            summary=read(folder / "summary.json") if status != "running" else None,
        )

    def _lines(self) -> list[Line]:
        return [self._line(cell) for cell in self._grid.cells]

    def _left(self) -> float:
        """Seconds until the last lane is expected to be done."""
        return max(
            sum(
                max(self._budgets[cell.name] - spent(self._folder(cell)), 0.0)
                for cell in self._cells(number)
                if cell in self._queues[number] or cell == self._running.get(number)
            )
            for number in range(len(self._lanes))
        )

    def _cells(self, number: int) -> Sequence[Cell]:
        return self._grid.cells[number :: len(self._lanes)]

    def _folder(self, cell: Cell) -> Path:
        return self._grid.folder / cell.name


def rows(folder: Path) -> list[dict[str, float]]:
    """The whole rows of a run's metrics.jsonl."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Carries out the cells of a sweep in its lanes."""

import os
import signal
import time
from types import FrameType

from rich.console import Console
from rich.live import Live

from actors.storage.files import lock
from launch.plan.plan import Plan
from launch.reporting import attempt, conclusion
from launch.sweep_runs.grid import Cell, Grid
from launch.sweep_runs.lanes import Lane, equal_part
from launch.sweep_runs.record import SweepRecord
from launch.sweep_runs.view import Line, describe, render, results

POLL_S = 1.0


class Scheduler:
    """Starts cells, follows them, and passes signals on."""

    def __init__(self, grid: Grid, plans: dict[str, Plan], lanes: list[Lane], console: Console) -> None:
        self._grid = grid
        self._lanes = lanes
        self._console = console
        self._record = SweepRecord(grid)
        self._received: list[int] = []
        self._passed_on = 0
        self._budgets = {name: plan.config.budget.seconds for name, plan in plans.items()}

    def run(self) -> int:
        """Carry out the sweep; the exit code."""
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
                    live.update(render(self._lines(), self.left()), refresh=True)
                time.sleep(POLL_S)
        finally:
            live.stop()
        self._console.print(results(self._lines()))
        report = attempt(self._grid.folder)
        for line in (f"Report         {report}", conclusion(self._grid.folder)):
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        if self._received:
            return 128 + self._received[0]
        return 0 if all(map(self._record.finished, self._grid.cells)) else 1

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)

    def _turn(self) -> bool:
        """Pass signals on, note which cells have ended, start others in their place; whether there is more to do."""
        for signalled in self._received[self._passed_on :]:
            self._passed_on += 1
            for lane in self._lanes:
                lane.signal(signalled)
        for lane in self._lanes:
            if end := lane.ended():
                self._put(*end)
            if not lane.running and not self._received:
                self._start(lane)
        running = any(lane.running for lane in self._lanes)
        return running or (any(lane.waiting for lane in self._lanes) and not self._received)

    def _start(self, lane: Lane) -> None:
        """Start the next cell of a lane that is not finished and has time left."""
        while lane.waiting:
            cell = lane.waiting[0]
            if (descriptor := lock(cell.record.path)) is None:
                return  # the run of a sweep that was killed is still saving its work
            os.close(descriptor)
            lane.waiting.pop(0)
            self._look_back(cell)
            if self._record.finished(cell):
                continue
            arguments = list(cell.arguments)
            if not any(argument.startswith("dashboard.port=") for argument in arguments):
                arguments.append("dashboard.port=0")
            if self._grid.settings.seconds is not None:
                budget_s = self._budgets[cell.name] = self.share(lane, cell)
                if cell.record.spent >= budget_s:
                    continue
                arguments.append(f"budget.minutes={budget_s / 60:.4f}")
            lane.start(cell, arguments, self._grid.folder / f"{cell.name}.log")
            self._put(cell, "running")
            return

    def _look_back(self, cell: Cell) -> None:
        """Learn what became of a cell that an earlier process of the sweep did not live to write down, or whose folder
        somebody has deleted, to have it done again.
        """
        status = self._record.status[cell.name]
        if self._record.finished(cell):
            if not cell.record.path.exists():
                self._put(cell, "pending", "its folder is gone")
        elif summary := cell.record.finished():
            self._put(cell, summary["status"], summary["reason"])
        elif status == "running":
            self._put(cell, "interrupted", "the sweep died")

    def share(self, lane: Lane, cell: Cell) -> float:
        """Return the budget of a cell out of the whole sweep's, in seconds."""
        waiting = [other for other in lane.waiting if not self._record.finished(other)]
        over = [other for other in lane.cells if other != cell and other not in waiting]
        longest = max(len(each.cells) for each in self._lanes)
        left_s = (self._grid.settings.seconds or 0.0) - sum(other.record.spent for other in over)
        return equal_part(left_s, longest - len(over))

    def _put(self, cell: Cell, status: str, reason: str | None = None) -> None:
        self._record.put(cell, status, reason)
        self._console.print(describe(self._line(cell)), soft_wrap=True, highlight=False, markup=False)

    def _line(self, cell: Cell) -> Line:
        status, latest = self._record.status[cell.name], (cell.record.rows() or [{}])[-1]
        return Line(
            cell=cell.name,
            status=status,
            reason=self._record.reason[cell.name],
            spent=cell.record.spent,
            budget=self._budgets[cell.name],
            updates=int(latest.get("update", 0)),
            accuracy=latest.get("reward/accuracy"),
            summary=cell.record.summary() if status != "running" else None,
        )

    def _lines(self) -> list[Line]:
        return [self._line(cell) for cell in self._grid.cells]

    def left(self) -> float:
        """Return the seconds until the last lane is expected to be done."""
        return max(
            sum(
                max(self._budgets[cell.name] - cell.record.spent, 0.0)
                for cell in lane.cells
                if cell in lane.waiting or cell == lane.running
            )
            for lane in self._lanes
        )

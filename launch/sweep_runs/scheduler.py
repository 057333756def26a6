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
from launch.sweep_runs.record import Standing, SweepRecord
from launch.sweep_runs.view import describe, render, results

POLL_S = 1.0


class Scheduler:
    """Starts cells, follows them, and passes signals on."""

    def __init__(self, grid: Grid, plans: dict[str, Plan], lanes: list[Lane], console: Console) -> None:
        self._grid = grid
        self._lanes = lanes
        self._console = console
        self._record = SweepRecord(grid, {name: plan.config.budget.seconds for name, plan in plans.items()})
        self._standings = self._record.standings
        self._received: list[int] = []
        self._passed_on = 0

    def run(self) -> int:
        """Carry out the sweep; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for standing in self._standings.values():
            self._look_back(standing)
        self._record.write()
        live = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            live.start()
        try:
            while self._turn():
                if live.is_started:
                    live.update(render(self._standings.values(), self.left()), refresh=True)
                time.sleep(POLL_S)
        finally:
            live.stop()
        self._console.print(results(self._standings.values()))
        report = attempt(self._grid.folder)
        for line in (f"Report         {report}", conclusion(self._grid.folder)):
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        if self._received:
            return 128 + self._received[0]
        return 0 if all(standing.finished for standing in self._standings.values()) else 1

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
                cell, status, reason = end
                self._put(self._standings[cell.name], status, reason)
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
            standing = self._standings[cell.name]
            self._look_back(standing)
            if standing.finished:
                continue
            arguments = list(cell.arguments)
            if not any(argument.startswith("dashboard.port=") for argument in arguments):
                arguments.append("dashboard.port=0")
            if self._grid.settings.seconds is not None:
                standing.budget = self.share(lane, cell)
                if not standing.left:
                    continue
                arguments.append(f"budget.minutes={standing.budget / 60:.4f}")
            lane.start(cell, arguments, self._grid.folder / f"{cell.name}.log")
            self._put(standing, "running")
            return

    def _look_back(self, standing: Standing) -> None:
        """Learn what became of a cell that an earlier process of the sweep did not live to write down, or whose folder
        somebody has deleted, to have it done again.
        """
        record = standing.cell.record
        if standing.finished:
            if not record.path.exists():
                self._put(standing, "pending", "its folder is gone")
        elif summary := record.finished():
            self._put(standing, summary.status, summary.reason)
        elif standing.status == "running":
            self._put(standing, "interrupted", "the sweep died")

    def _put(self, standing: Standing, status: str, reason: str | None = None) -> None:
        standing.status, standing.reason = status, reason
        self._record.write()
        self._console.print(describe(standing), soft_wrap=True, highlight=False, markup=False)

    def share(self, lane: Lane, cell: Cell) -> float:
        """Return the budget of a cell out of the whole sweep's, in seconds."""
        waiting = [other for other in lane.waiting if not self._standings[other.name].finished]
        over = [other for other in lane.cells if other != cell and other not in waiting]
        longest = max(len(each.cells) for each in self._lanes)
        left_s = (self._grid.settings.seconds or 0.0) - sum(other.record.spent for other in over)
        return equal_part(left_s, longest - len(over))

    def left(self) -> float:
        """Return the seconds until the last lane is expected to be done."""
        ahead = [[*lane.waiting, *([lane.running] if lane.running else [])] for lane in self._lanes]
        return max(sum(self._standings[cell.name].left for cell in cells) for cells in ahead)

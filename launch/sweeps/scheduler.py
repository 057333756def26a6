"""Carries out the cells of a sweep in its lanes."""

import os
import signal
import time
from types import FrameType

from rich.console import Console
from rich.live import Live

from actors.storage.files import lock
from actors.storage.run_record import FINISHED
from launch.plan.plan import Plan
from launch.reports import attempt
from launch.sweeps.grid import RATE, Cell, Grid
from launch.sweeps.lanes import Lane
from launch.sweeps.record import SweepRecord
from launch.sweeps.shared_budget import allowance, final_accuracy, halfway_accuracy
from launch.sweeps.tuner import Tuner
from launch.sweeps.view import Line, describe, render, results

POLL_S = 1.0

NO_RATE = "no learning rate is left for it: too few trials came to an end"


class Scheduler:
    """Starts cells, follows them, ends those that do badly, and passes signals on."""

    def __init__(self, grid: Grid, plans: dict[str, Plan], lanes: list[Lane], console: Console) -> None:
        self._grid = grid
        self._lanes = lanes
        self._console = console
        self._record = SweepRecord(grid)
        self._tuner = Tuner(grid, self._record, self._over)
        self._compared: dict[str, str] = {}
        self._received: list[int] = []
        self._passed_on = 0
        self._budgets = {name: plan.config.budget.seconds for name, plan in plans.items()}

    def run(self) -> int:
        """Carry out the sweep; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for cell in self._grid.all:
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
        self._console.print(results([self._line(cell) for cell in self._grid.cells]))
        report = attempt(self._grid.folder)
        self._console.print(f"Report         {report}", soft_wrap=True, highlight=False, markup=False)
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
                cell, status, reason = end
                if status == "interrupted" and not self._received and self._compared.get(cell.name):
                    status, reason = "stopped_early", self._compared[cell.name]
                self._put(cell, status, reason)
            if not lane.running and not self._received:
                self._start(lane)
            if lane.running:
                self._stop_early(lane, lane.running)
        running = any(lane.running for lane in self._lanes)
        return running or (any(lane.waiting for lane in self._lanes) and not self._received)

    def _start(self, lane: Lane) -> None:
        """Start the next cell of a lane that is not finished, has time left, and whose learning rate is known."""
        while cell := next(filter(self._tuner.ready, lane.waiting), None):
            if (descriptor := lock(cell.record.path)) is None:
                return  # the run of a sweep that was killed is still saving its work
            os.close(descriptor)
            lane.waiting.remove(cell)
            self._look_back(cell)
            if self._record.finished(cell) or self._tuner.decided(cell):
                continue
            arguments = list(cell.arguments)
            if cell.rates:
                arguments = [argument for argument in arguments if argument.partition("=")[0] != RATE]
                rate = self._record.rate[cell.name] = self._tuner.rate(cell)
                if rate is None:
                    self._put(cell, "skipped" if cell.trial else "failed", NO_RATE)
                    continue
                arguments.append(f"{RATE}={rate}")
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
        longest = max(sum(other.weight for other in each.cells) for each in self._lanes)
        left_s = (self._grid.settings.seconds or 0.0) - sum(other.record.spent for other in over)
        return allowance(left_s, cell.weight, longest - sum(other.weight for other in over))

    def _over(self, cell: Cell) -> bool:
        return not any(cell in lane.waiting or cell == lane.running for lane in self._lanes)

    def _stop_early(self, lane: Lane, cell: Cell) -> None:
        """Half-way, once: end a cell that does far worse than the best of its model did."""
        stop_below = self._grid.settings.stop_below
        if stop_below is None or cell.trial or cell.name in self._compared:
            return
        if (own := halfway_accuracy(cell.record.rows())) is None:
            return
        others = [other for other in self._grid.cells if other != cell and other.model == cell.model]
        best = max((halfway_accuracy(other.record.rows()) or 0.0 for other in others), default=0.0)
        self._compared[cell.name] = ""
        if own < stop_below * best:
            self._compared[cell.name] = f"accuracy {own:.3f} half-way, where the best cell had {best:.3f}"
            lane.signal(signal.SIGTERM)

    def _put(self, cell: Cell, status: str, reason: str | None = None) -> None:
        if cell.trial and status in FINISHED:
            self._record.score[cell.name] = final_accuracy(cell.record.rows())
        self._record.put(cell, status, reason)
        self._console.print(describe(self._line(cell)), soft_wrap=True, highlight=False, markup=False)

    def _line(self, cell: Cell) -> Line:
        status, latest = self._record.status[cell.name], (cell.record.rows() or [{}])[-1]
        return Line(
            cell=cell.name,
            overrides=cell.overrides,
            status=status,
            reason=self._record.reason[cell.name],
            spent=cell.record.spent,
            budget=self._budgets[cell.name],
            updates=int(latest.get("update", 0)),
            accuracy=latest.get("reward/accuracy"),
            summary=cell.record.summary() if status != "running" else None,
        )

    def _lines(self) -> list[Line]:
        return [self._line(cell) for cell in self._grid.all]

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

"""Carries out the runs of a sweep in its lanes."""

import os
import time
from types import FrameType

from rich.console import Console
from rich.live import Live

from actors.storage.documents import SweepDocument, SweepEntry
from actors.storage.files import lock, write_document
from conf.settings import changed
from conf.signals import handle_signals
from launch.reporting import attempt, conclusion
from launch.session.admission import budget_shortage
from launch.sweep_runs.grid import Grid, SweepRun
from launch.sweep_runs.lanes import Lane
from launch.sweep_runs.view import runs_table

POLL_S = 1.0


class Scheduler:
    """Starts runs, follows them, and passes signals on."""

    def __init__(self, grid: Grid, lanes: list[Lane], console: Console) -> None:
        self._grid = grid
        self._lanes = lanes
        self._console = console
        self._received: list[int] = []
        self._passed_on = 0

    def run(self) -> int:
        """Carry out the sweep. Return the exit code."""
        handle_signals(self._on_signal)
        for run in self._grid.runs:
            self._look_back(run)
        self._write()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while self._turn():
                if self._console.is_terminal:
                    live.update(runs_table(self._grid.runs), refresh=True)
                time.sleep(POLL_S)
        self._console.print(runs_table(self._grid.runs))
        for line in (f"Report         {attempt(self._grid.folder)}", conclusion(self._grid.folder)):
            self._console.print(line)
        if self._received:
            return 128 + self._received[0]
        return 0 if all(run.finished for run in self._grid.runs) else 1

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)

    def _turn(self) -> bool:
        """Pass signals on, note which runs have ended and start others in their place. Return whether to go on."""
        for number in self._received[self._passed_on :]:
            self._passed_on += 1
            for lane in self._lanes:
                lane.signal(number)
        for lane in self._lanes:
            if end := lane.ended():
                self._put(*end)
            if not lane.running and not self._received:
                self._start(lane)
        running = any(lane.running for lane in self._lanes)
        return running or (any(lane.waiting for lane in self._lanes) and not self._received)

    def _start(self, lane: Lane) -> None:
        """Start the next run of a lane that is not finished and has time left."""
        while lane.waiting:
            run = lane.waiting[0]
            if (descriptor := lock(run.record.path)) is None:
                return  # after a sweep was killed, its run is still saving its work
            os.close(descriptor)
            lane.waiting.pop(0)
            self._look_back(run)
            if run.finished:
                continue
            arguments = list(run.arguments)
            if self._grid.settings.seconds is not None:
                budget_s = self._budget(lane, run)
                if budget_s <= run.record.spent:
                    continue
                run.config = changed(run.config, {"budget.minutes": budget_s / 60})
                arguments.append(f"budget.minutes={run.config.budget.minutes:.4f}")
            if run.record.exists and (said := budget_shortage(run.config, run.record)):
                summary = run.record.summary()
                status = summary.status if summary else "interrupted"
                if shared := self._grid.settings.seconds is not None:
                    said = f"{said.rpartition(':')[0]}: give the sweep more time"
                if status != "failed" or shared:
                    self._put(run, status, said)
                    continue
                arguments.append("run.overwrite=true")
            lane.start(run, arguments, self._grid.folder / f"{run.name}.log")
            self._put(run, "running")
            return

    def _look_back(self, run: SweepRun) -> None:
        """Take the status of a finished run from its folder."""
        if summary := run.record.finished():
            run.status, run.reason = summary.status, summary.reason

    def _put(self, run: SweepRun, status: str, reason: str | None = None) -> None:
        run.status, run.reason = status, reason
        self._write()
        self._console.print(f"{run.name}: {status}{f', {reason}' if reason else ''}")

    def _write(self) -> None:
        """Write sweep.json, which is whole after any crash."""
        grid = self._grid
        runs = [
            SweepEntry(name=run.name, overrides=run.overrides, status=run.status, reason=run.reason)
            for run in grid.runs
        ]
        document = SweepDocument(name=grid.name, conf=grid.conf, axes=grid.axes, runs=runs)
        write_document(grid.folder / "sweep.json", document)

    def _budget(self, lane: Lane, run: SweepRun) -> float:
        """Return a run's part of the sweep's seconds: an equal part of the seconds that earlier runs have left."""
        waiting = [other for other in lane.waiting if not other.finished]
        over = [other for other in lane.runs if other is not run and other not in waiting]
        to_come = max(len(each.runs) for each in self._lanes) - len(over)
        left_s = (self._grid.settings.seconds or 0.0) - sum(other.record.spent for other in over)
        return max(left_s, 0.0) / max(to_come, 1)

"""Carries out the runs and exams of a sweep in its lanes."""

import os
import time
from dataclasses import asdict
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from actors.storage.documents import SweepDocument, SweepEntry
from actors.storage.files import lock, write_document
from conf.settings import changed
from conf.signals import handle_signals
from launch.reporting import attempt, conclusion
from launch.session.admission import budget_shortage
from launch.sweep_runs.grid import Grid, Inquiry, SweepRun
from launch.sweep_runs.jobs import Exam, Job, jobs_of
from launch.sweep_runs.lanes import Lane
from launch.sweep_runs.view import runs_table

POLL_S = 1.0


class Scheduler:
    """Starts runs and exams, follows them, and passes signals on."""

    def __init__(
        self, grid: Grid, bases: list[Exam], exams: dict[str, Exam], lanes: list[Lane], console: Console
    ) -> None:
        """bases: exams of the base models. exams: those of the runs, by name."""
        self._grid = grid
        self._bases = bases
        self._exams = exams
        self._lanes = lanes
        for lane in lanes:
            lane.waiting = jobs_of(lane.runs, self._exams)
        self._console = console
        self._received: list[int] = []
        self._passed_on = 0

    def run(self) -> int:
        """Carry out the sweep. Return the exit code."""
        handle_signals(self._on_signal)
        jobs: list[Job] = [*self._grid.inquiries, *self._bases, *self._grid.runs, *self._exams.values()]
        for job in jobs:
            self._look_back(job)
        self._write()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while self._turn():
                if self._console.is_terminal:
                    live.update(runs_table(self._grid.runs, self._bases, self._exams), refresh=True)
                time.sleep(POLL_S)
        self._console.print(runs_table(self._grid.runs, self._bases, self._exams))
        for line in (f"Report         {attempt(self._grid.folder)}", conclusion(self._grid.folder)):
            self._console.print(line)
        if self._received:
            return 128 + self._received[0]
        return 0 if all(job.finished or job.status == "skipped" for job in jobs) else 1

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)

    def _turn(self) -> bool:
        """Pass signals on, note which jobs have ended and start others in their place. Return whether to go on."""
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
        """Start the next job of a lane that is not finished, has time left and need not wait for another lane."""
        while job := next(filter(self._ready, lane.waiting), None):
            if isinstance(job, Exam) and job.obstacle:
                lane.waiting.remove(job)
                self._put(job, *job.obstacle)
                continue
            if (descriptor := lock(job.folder)) is None:
                return  # after a sweep was killed, its job is still saving its work
            os.close(descriptor)
            lane.waiting.remove(job)
            self._look_back(job)
            if job.finished:
                continue
            arguments = self._arguments(lane, job) if isinstance(job, SweepRun) else job.arguments
            if arguments:
                name = job.name if isinstance(job, SweepRun) else f"{job.name}-{job.kind}"
                lane.start(job, arguments, self._grid.folder / f"{name}.log")
                self._put(job, "running")
                return

    def _ready(self, job: Job) -> bool:
        """Whether a job need not wait for one on its base model: an exam for that one's, whose run is before it; a run
        for the doctor.
        """
        base = job.base if isinstance(job, Exam) else job.inquiry if isinstance(job, SweepRun) else None
        return not base or not any(base is lane.running or base in lane.waiting for lane in self._lanes)

    def _arguments(self, lane: Lane, run: SweepRun) -> list[str]:
        """Return the arguments of a run; none if it has no time left."""
        arguments = list(run.arguments)
        if self._grid.settings.seconds is not None:
            budget_s = self._budget(lane, run)
            if budget_s <= run.record.spent:
                return []
            run.config = changed(run.config, {"budget.minutes": budget_s / 60})
            arguments.append(f"budget.minutes={run.config.budget.minutes:.4f}")
        if run.record.exists and (said := budget_shortage(run.config, run.record)):
            summary = run.record.summary()
            status = summary.status if summary else "interrupted"
            if shared := self._grid.settings.seconds is not None:
                said = f"{said.rpartition(':')[0]}: give the sweep more time"
            if status != "failed" or shared or run.record.checkpoints.latest:
                self._put(run, status, said)
                return []
            arguments.append("run.overwrite=true")
        return arguments

    def _look_back(self, job: Job) -> None:
        """Take the status of a finished job from its folder."""
        if not isinstance(job, SweepRun):
            job.status, job.reason = ("completed", job.remark) if job.finished else (job.status, job.reason)
        elif summary := job.record.finished():
            job.status, job.reason = summary.status, summary.reason

    def _put(self, job: Job, status: str, reason: str | None = None) -> None:
        job.status, job.reason = status, reason
        self._write()
        what = job.name if isinstance(job, SweepRun) else f"{job.kind} of {job.name}"
        style = "bold yellow" if isinstance(job, Inquiry) and reason else ""
        self._console.print(Text(f"{what}: {status}{f', {reason}' if reason else ''}", style))

    def _write(self) -> None:
        """Write sweep.json, which is whole after any crash."""
        grid, sweep = self._grid, self._grid.settings
        asked: dict[str, Any] = {
            name: getattr(sweep, name) for name in ("benchmarks", "n", "pass_at") if sweep.benchmarks
        }
        runs = [entry(run, self._exams.get(run.name)) for run in grid.runs]
        bases = [entry(base) for base in self._bases]
        asked["signals"] = [entry(inquiry) for inquiry in grid.inquiries]
        axes, remark = grid.axes, sweep.remark
        document = SweepDocument(
            name=grid.name, conf=grid.conf, axes=axes, remark=remark, runs=runs, bases=bases, **asked
        )
        write_document(grid.folder / "sweep.json", document)

    def _budget(self, lane: Lane, run: SweepRun) -> float:
        """Return a run's part of the sweep's seconds: an equal part of the seconds that earlier runs have left."""
        waiting = [other for other in lane.runs if other in lane.waiting and not other.finished]
        over = [other for other in lane.runs if other is not run and other not in waiting]
        to_come = max(len(each.runs) for each in self._lanes) - len(over)
        left_s = (self._grid.settings.seconds or 0.0) - sum(other.record.spent for other in over)
        return max(left_s, 0.0) / max(to_come, 1)


def entry(job: Job, exam: Exam | None = None) -> SweepEntry:
    """Return the entry of a job in sweep.json. exam: the run's."""
    reason = f"exam: {exam.reason}" if exam and exam.reason and job.finished else job.reason
    status = exam.status if exam else None
    signal = asdict(job.answer) if isinstance(job, Inquiry) and job.answer else None
    made = SweepEntry(name=job.name, overrides=job.overrides, status=job.status, reason=reason, exam=status)
    return made.model_copy(update={"signal": signal})

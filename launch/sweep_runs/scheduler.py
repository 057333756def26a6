"""Carries out the runs and exams of a sweep on its workers."""

import os
import time
from dataclasses import asdict
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.storage.documents import SweepDocument, SweepEntry
from actors.storage.files import lock, write_document
from conf.settings import changed
from conf.signals import handle_signals
from launch.reporting import attempt, conclusion
from launch.sweep_runs.grid import Grid, Inquiry, SweepRun
from launch.sweep_runs.jobs import Exam, Job, phases
from launch.sweep_runs.plan_view import plain_table
from launch.sweep_runs.workers import Worker

POLL_S = 1.0

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}


class Scheduler:
    """Starts runs and exams, follows them, and passes signals on."""

    def __init__(
        self, grid: Grid, bases: list[Exam], exams: dict[str, Exam], workers: list[Worker], console: Console
    ) -> None:
        """bases: exams of the base models. exams: those of the runs, by name."""
        self._grid = grid
        self._bases = bases
        self._exams = exams
        self._workers = workers
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
            for phase in phases(self._grid, self._bases, self._exams, len(self._workers)):
                for worker, own in zip(self._workers, phase, strict=True):
                    worker.waiting = own
                while self._turn():
                    if self._console.is_terminal:
                        live.update(self._table(), refresh=True)
                    time.sleep(POLL_S)
        self._console.print(self._table())
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
            for worker in self._workers:
                worker.signal(number)
        for worker in self._workers:
            if end := worker.ended():
                self._put(*end)
            while worker.waiting and not worker.running and not self._received and self._start(worker):
                pass
        return any(worker.running or (worker.waiting and not self._received) for worker in self._workers)

    def _start(self, worker: Worker) -> bool:
        """Start the next job of a worker, or leave it out. Return whether to go on: not if another process has the job,
        which still saves its work after a sweep was killed.
        """
        job = worker.waiting[0]
        if not (obstacle := job.obstacle if isinstance(job, Exam) else None):
            if (descriptor := lock(job.folder)) is None:
                return False
            os.close(descriptor)
        worker.waiting = worker.waiting[1:]
        self._look_back(job)
        if obstacle:
            self._put(job, *obstacle)
        elif not job.finished and (arguments := self._arguments(worker, job)):
            name = job.name if isinstance(job, SweepRun) else f"{job.name}-{job.kind}"
            worker.start(job, arguments, self._grid.folder / f"{name}.log")
            self._put(job, "running")
        return True

    def _arguments(self, worker: Worker, job: Job) -> list[str]:
        """Return the arguments of a job; none for a run that has no time left. A run's part of the sweep's budget is an
        equal part of what the runs that its worker has carried out have left.
        """
        if not isinstance(job, SweepRun) or (total_s := self._grid.settings.seconds) is None:
            return [*job.arguments]
        count = len(self._workers)
        own = self._grid.runs[self._workers.index(worker) :: count]
        over = [run for run in own if run is not job and (run.finished or run not in worker.waiting)]
        left_s = total_s - sum(run.record.spent for run in over)
        budget_s = left_s / max(len(self._grid.runs[::count]) - len(over), 1)
        if budget_s <= job.record.spent:
            return []
        job.config = changed(job.config, {"budget.minutes": budget_s / 60})
        return [*job.arguments, f"budget.minutes={job.config.budget.minutes:.4f}"]

    def _look_back(self, job: Job) -> None:
        """Take the status of a finished job from its folder."""
        if job.finished and job.outcome:
            job.status, job.reason = job.outcome

    def _put(self, job: Job, status: str, reason: str | None = None) -> None:
        job.status, job.reason = status, reason
        self._write()
        what = job.name if isinstance(job, SweepRun) else f"{job.kind} of {job.name}"
        style = "bold yellow" if isinstance(job, Inquiry) and reason else ""
        self._console.print(Text(f"{what}: {status}{f', {reason}' if reason else ''}", style))

    def _table(self) -> Table:
        """Return the progress of every run and its held-out accuracy; means over seeds are in the report."""
        table = plain_table("run", "status", "spent", "updates", "held-out pass@1", *(["exam"] * bool(self._exams)))
        for inquiry in self._grid.inquiries:
            said = inquiry.answer.verdict if inquiry.answer else inquiry.status
            table.add_row(
                f"signal of {inquiry.name}", Text(said, STYLE.get(said, "bold yellow" if inquiry.reason else ""))
            )
        for model in self._bases:
            table.add_row(model.name, *[""] * 4, Text(model.status, STYLE.get(model.status, "")))
        for run in self._grid.runs:
            summary = run.record.summary()
            base, final = (summary.eval.base, summary.eval.final) if summary else (None, None)
            change = ""
            if base and final:
                change = "{:.3f} → {:.3f} ({:.3f}–{:.3f})".format(base.pass_at_1, final.pass_at_1, *final.ci95)
            statuses = [run.status, *([self._exams[run.name].status] if self._exams else [])]
            status, *exam = (Text(each, STYLE.get(each, "")) for each in statuses)
            spent = run.record.spent / run.config.budget.seconds
            table.add_row(run.name, status, f"{spent:.0%}", f"{run.record.updates}", change, *exam)
        return table

    def _write(self) -> None:
        """Write sweep.json, which is whole after any crash."""
        grid, sweep = self._grid, self._grid.settings
        asked: dict[str, Any] = {
            name: getattr(sweep, name) for name in ("benchmarks", "n", "pass_at") if sweep.benchmarks
        }
        document = SweepDocument(
            name=grid.name,
            conf=grid.conf,
            axes=grid.axes,
            remark=sweep.remark,
            runs=[entry(run, self._exams.get(run.name)) for run in grid.runs],
            bases=[entry(base) for base in self._bases],
            signals=[entry(inquiry) for inquiry in grid.inquiries],
            **asked,
        )
        write_document(grid.folder / "sweep.json", document)


def entry(job: Job, exam: Exam | None = None) -> SweepEntry:
    """Return the entry of a job in sweep.json. exam: the run's."""
    return SweepEntry(
        name=job.name,
        overrides=job.overrides,
        status=job.status,
        reason=f"exam: {exam.reason}" if exam and exam.reason and job.finished else job.reason,
        exam=exam.status if exam else None,
        signal=asdict(job.answer) if isinstance(job, Inquiry) and job.answer else None,
    )

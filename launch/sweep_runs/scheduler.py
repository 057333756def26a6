"""Carries out the jobs of a sweep: its runs, and the evaluations of base models and results."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGTERM

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from microbudget_rl.actors.runtime.cause_of_death import describe_exit
from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.actors.storage.documents import SweepDocument, SweepEntry
from microbudget_rl.actors.storage.files import lock, write_document
from microbudget_rl.conf.command import BAD_INPUT
from microbudget_rl.conf.signals import end_by_signal, handle_signals
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.reporting import attempt, conclusion
from microbudget_rl.launch.session.admission import budget_shortage
from microbudget_rl.launch.sweep_runs.jobs import Evaluation, Grid, Job, SweepRun
from microbudget_rl.launch.sweep_runs.plan_view import plain_table

PROGRAMS = Path(__file__).parents[1]
"""Folder of the programs."""

POLL_S = 1.0

STATUS = {130: "interrupted", 143: "interrupted", -SIGINT: "interrupted", -SIGTERM: "interrupted", 3: "halted"}
"""The status of a job by its exit code: `failed` for any other but 0. Negative: a signal before Python had started."""

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}


@dataclass
class Scheduler:
    """Starts jobs on their workers, follows them, and passes signals on. machines: the part of each worker."""

    grid: Grid
    machines: Sequence[Machine]
    console: Console
    received: list[int] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self) -> int:
        """Carry out the sweep. Return the exit code."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        handle_signals(lambda number, _: loop.call_soon_threadsafe(self._pass_on, number))
        jobs: list[Job] = [*self.grid.bases, *self.grid.runs, *self.grid.evaluations]
        for job in jobs:
            self._look_back(job)
        self._write()
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            display = asyncio.create_task(self._show(live))
            for phase in self.grid.phases(len(self.machines)):
                await asyncio.gather(*(self._work(turn, queue) for turn, queue in enumerate(phase)))
            display.cancel()
        handle_signals(end_by_signal)
        self.console.print(self._table())
        self.console.print(f"Report         {attempt(self.grid.folder)}")
        self.console.print(conclusion(self.grid.folder))
        if self.received:
            return 128 + self.received[0]
        return 0 if all(job.finished or job.status == "skipped" for job in jobs) else 1

    def _pass_on(self, number: int) -> None:
        """Pass a signal on to all jobs. No other one starts."""
        self.received.append(number)
        for process in self.processes:
            process.send_signal(number)

    async def _show(self, live: Live) -> None:
        while self.console.is_terminal:
            live.update(self._table(), refresh=True)
            await asyncio.sleep(POLL_S)

    async def _work(self, turn: int, jobs: Iterable[Job]) -> None:
        """Carry out the jobs of a worker one after another. turn: the worker's number."""
        for job in jobs:
            if self.received:
                return
            if obstacle := job.obstacle:
                self._put(job, *obstacle)
                continue
            if job.folder.exists():  # else it is the job that makes and marks it
                while (descriptor := lock(job.folder)) is None:
                    await asyncio.sleep(POLL_S)  # after a sweep was killed, its job is still saving its work
                    if self.received:
                        return
                os.close(descriptor)
            self._look_back(job)
            if not job.finished and (arguments := self._arguments(turn, job)):
                await self._carry_out(turn, job, arguments)

    async def _carry_out(self, turn: int, job: Job, arguments: Sequence[str]) -> None:
        """Carry out a job, logged, in a session of its own, so that Ctrl-C reaches it through `_pass_on` alone."""
        machine, parent = self.machines[turn], os.getpid()
        log = self.grid.folder / f"{job.name}{'' if isinstance(job, SweepRun) else '-evaluation'}.log"
        gpu = {"CUDA_VISIBLE_DEVICES": machine.cards[0].index} if len(self.machines) > 1 else {}

        def prepare() -> None:
            os.sched_setaffinity(0, machine.cores)
            end_with(parent)

        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, PROGRAMS / f"{job.program}.py", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **gpu},
                start_new_session=True,
                preexec_fn=prepare,  # safe, since this process has one thread
            )
        self.processes.append(process)
        self._put(job, "running")
        while (code := process.poll()) is None:
            await asyncio.sleep(POLL_S)
        self.processes.remove(process)
        self._put(job, *ending(job, code, log))

    def _arguments(self, turn: int, job: Job) -> list[str]:
        """Return the arguments of a job; none for a run without time. A run's part of the sweep's budget is an equal
        part of what the worker's runs that have ended have left. One that failed with nothing saved begins again.
        """
        if not isinstance(job, SweepRun):
            return [*job.arguments]
        if (total_s := self.grid.settings.seconds) is not None:
            count = len(self.machines)
            runs = self.grid.runs[turn::count]
            others = [*runs[: runs.index(job)], *(run for run in runs[runs.index(job) + 1 :] if run.finished)]
            left_s = total_s - sum(run.record.spent for run in others)
            budget_s = left_s / (len(self.grid.runs[::count]) - len(others))
            if budget_s <= job.record.spent:
                return []
            job.set("budget.minutes", round(budget_s / 60, 4))
        if not job.record.exists or not (said := budget_shortage(job.config, job.record)):
            return [*job.arguments]
        status = job.outcome[0] if job.outcome else "interrupted"
        if status == "failed" and total_s is None and not job.record.checkpoints.latest:
            return [*job.arguments, "run.overwrite=true"]
        self._put(job, status, f"{said.rpartition(':')[0]}: give the sweep more time" if total_s else said)
        return []

    def _look_back(self, job: Job) -> None:
        """Take the status of a finished job from its folder."""
        if job.finished and job.outcome:
            job.status, job.reason = job.outcome

    def _put(self, job: Job, status: str, reason: str | None = None) -> None:
        job.status, job.reason = status, reason
        self._write()
        what = job.name if isinstance(job, SweepRun) else f"evaluation of {job.name}"
        self.console.print(Text(f"{what}: {status}{f', {reason}' if reason else ''}"))

    def _table(self) -> Table:
        """Return the progress of every run and its held-out accuracy; means over seeds are in the report."""
        more = ["benchmarks"] * bool(self.grid.bases)
        table = plain_table("run", "status", "spent", "updates", "held-out pass@1", *more)
        jobs: list[Job] = [*self.grid.bases, *self.grid.runs]
        for job in jobs:
            status, change = Text(job.status, STYLE.get(job.status, "")), ""
            if not isinstance(job, SweepRun):
                table.add_row(job.name, *[""] * 4, status)
                continue
            if (summary := job.record.summary()) and (base := summary.eval.base) and (final := summary.eval.final):
                change = "{:.3f} → {:.3f} ({:.3f}–{:.3f})".format(base.pass_at_1, final.pass_at_1, *final.ci95)
            spent, endings = job.record.spent / job.config.budget.seconds, [each.status for each in job.evaluations]
            table.add_row(job.name, status, f"{spent:.0%}", f"{job.record.updates}", change, *endings)
        return table

    def _write(self) -> None:
        """Write sweep.json, which is whole after any crash."""
        grid, sweep = self.grid, self.grid.settings
        document = SweepDocument(
            name=grid.name,
            conf=grid.conf,
            axes=grid.axes,
            benchmarks=sweep.benchmarks,
            n=sweep.n if sweep.benchmarks else None,
            pass_at=sweep.pass_at,
            remark=sweep.remark,
            runs=[entry(run, *run.evaluations) for run in grid.runs],
            bases=[entry(base) for base in grid.bases],
        )
        write_document(grid.folder / "sweep.json", document)


def entry(job: Job, evaluation: Evaluation | None = None) -> SweepEntry:
    """Return the entry of a job in sweep.json. evaluation: the run's."""
    return SweepEntry(
        name=job.name,
        overrides=job.overrides,
        status=job.status,
        reason=f"evaluation: {evaluation.reason}" if evaluation and evaluation.reason and job.finished else job.reason,
        benchmarked=evaluation.status if evaluation else None,
    )


def ending(job: Job, code: int, log: Path) -> tuple[str, str | None]:
    """Return the status of a job whose process has ended, and the reason. code: the exit code."""
    status, outcome = STATUS.get(code, "failed"), job.outcome
    if outcome and (job.finished or (outcome[0] == status and code != BAD_INPUT)):  # else it is of an earlier try
        return outcome
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return status, said[-1].removeprefix(f"{job.program}.py: ") if said and code > 0 else describe_exit(code)

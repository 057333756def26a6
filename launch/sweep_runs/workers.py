"""The GPU workers of a sweep: each has a part of the machine, and carries out one process at a time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT, SIGTERM

from actors.models.adapters import check_adapter
from actors.runtime.cause_of_death import describe_exit
from actors.runtime.process import end_with
from conf.command import BAD_INPUT
from conf.settings import changed
from launch.hardware.machine import Machine, with_gpus
from launch.plan.calibration import plan_measured
from launch.plan.plan import Plan
from launch.session.admission import resolve_model
from launch.sweep_runs.grid import Grid
from launch.sweep_runs.jobs import Job
from rewards.pool import check_functions

PROGRAMS = Path(__file__).parents[1]
"""Folder of the programs."""

STATUS = {130: "interrupted", 143: "interrupted", -SIGINT: "interrupted", -SIGTERM: "interrupted", 3: "halted"}
"""The status of a job by its exit code: `failed` for any other but 0. Negative: a signal before Python had started."""


@dataclass(eq=False)
class Worker:
    """Carries out jobs one after another. gpu: value of CUDA_VISIBLE_DEVICES, None for all GPUs."""

    machine: Machine
    gpu: str | None
    waiting: Sequence[Job] = ()
    running: Job | None = None

    def start(self, job: Job, arguments: Sequence[str], log: Path) -> None:
        """Start a job, whose output is appended to the log.

        It has a session of its own, so that Ctrl-C reaches it through `signal` alone. It gets a SIGTERM if this process
        ends.
        """
        environment = os.environ if self.gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": self.gpu}
        parent = os.getpid()

        def prepare() -> None:
            os.sched_setaffinity(0, self.machine.cores)
            end_with(parent)

        self.running, self._log = job, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, PROGRAMS / f"{job.program}.py", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=prepare,  # safe, since this process has one thread
            )

    def signal(self, number: int) -> None:
        """Pass a signal on to the job, if there is one."""
        if self.running:
            self._process.send_signal(number)

    def ended(self) -> tuple[Job, str, str | None] | None:
        """Return the job that has ended since the last call, if there is one, with its status and the reason."""
        if not self.running or (code := self._process.poll()) is None:
            return None
        job, self.running = self.running, None
        status, outcome = STATUS.get(code, "failed"), job.outcome
        if outcome and (job.finished or (outcome[0] == status and code != BAD_INPUT)):  # else it is of an earlier try
            return job, *outcome
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return job, status, said[-1].removeprefix(f"{job.program}.py: ") if said and code > 0 else describe_exit(code)


def divide(machine: Machine, grid: Grid) -> list[Machine]:
    """Return the part of a machine that each worker of a sweep has: a GPU of its own and an equal part of the rest. On
    a CPU, on a Ray cluster and for runs of several GPUs, one has all.
    """
    several = any(max(run.config.learner.world_size or 1, run.config.rollout.actors or 1) > 1 for run in grid.runs)
    count = 1 if several or os.environ.get("RAY_ADDRESS") else min(*map(len, (machine.cards, machine.cores, grid.runs)))
    if count <= 1:
        return [machine]
    memory = machine.host_memory and machine.host_memory // count
    each = len(machine.cores) // count
    parts = [with_gpus([machine.cards[n]], machine.cores[n * each : (n + 1) * each]) for n in range(count)]
    return [replace(part, host_memory=memory) for part in parts]


def plan_runs(grid: Grid, machines: Sequence[Machine]) -> dict[str, Plan]:
    """Plan every run on its worker's part of the machine, with its part of the sweep's budget. Of n workers, each has
    every n-th run.
    """
    plans, total, count = {}, grid.settings.seconds, len(machines)
    for number, run in enumerate(grid.runs):
        if count > 1 and run.config.run.nvidia_mps == "auto":  # each service would see all GPUs
            run.set("run.nvidia_mps", "off")
        machine = machines[number % count]
        run.config = resolve_model(run.config, machine)
        if total is not None:
            run.config = changed(run.config, {"budget.minutes": total / len(grid.runs[::count]) / 60})
        check_functions(run.config.reward)
        plan = plans[run.name] = plan_measured(run.config, machine, grid.folder.parent)
        if not run.record.finished():
            check_adapter(run.config, run.config.model.path, plan.shape)
    return plans

"""Carries out runs and exams in parallel: each lane has a part of the machine, and one process at a time."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
from launch.sweep_runs.grid import Grid, Inquiry, SweepRun
from launch.sweep_runs.jobs import Job
from rewards.pool import check_functions

Programs = Mapping[str, Sequence[str]]
"""Commands by the name of the program."""

PROGRAMS = {
    name: (sys.executable, str(Path(__file__).parents[1] / f"{name}.py")) for name in ("run", "evaluate", "doctor")
}

STATUS = {130: "interrupted", 143: "interrupted", -SIGINT: "interrupted", -SIGTERM: "interrupted", 3: "halted"}
"""The status of a job by its exit code: `failed` for any other but 0. Negative: a signal before Python had started."""


@dataclass(eq=False)
class Lane:
    """A part of the machine on which runs and exams take turns.

    gpu: value of CUDA_VISIBLE_DEVICES, None for all GPUs. waiting: the jobs to come, at first without exams.
    """

    runs: Sequence[SweepRun]
    machine: Machine
    gpu: str | None
    programs: Programs
    running: Job | None = None

    def __post_init__(self) -> None:
        self.waiting: list[Job] = [*self.runs]

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
                [*self.programs[job.program], *arguments],
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
        if not isinstance(job, SweepRun) and job.finished and (code == 0 or isinstance(job, Inquiry)):
            return job, "completed", job.remark
        summary = job.record.summary() if isinstance(job, SweepRun) and code != BAD_INPUT else None  # of an earlier try
        if summary and (code == 0 or STATUS.get(code, "failed") == summary.status):
            return job, summary.status, summary.reason
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        reason = said[-1].removeprefix(f"{job.program}.py: ") if said and code > 0 else describe_exit(code)
        return job, STATUS.get(code, "failed"), reason


def plan_lanes(grid: Grid, machines: Sequence[Machine], programs: Programs) -> tuple[list[Lane], dict[str, Plan]]:
    """Return as many lanes as all runs fit on, and the plan of every run. Of n lanes each has every n-th run.

    machines: the machine of each run. On a Ray cluster a run takes the whole cluster.
    """
    for count in range(min(_most(grid, machines), len(grid.runs)), 0, -1):
        plans = _plans(grid, machines, count)
        if all(plan.fits for plan in plans.values()):
            break
    for run in grid.runs:
        if count > 1 and run.config.run.nvidia_mps == "auto":  # each service would see all GPUs
            run.set("run.nvidia_mps", "off")
    lanes = []
    for number in range(count):
        own = part(machines[number], number, count)
        lanes.append(Lane(grid.runs[number::count], own, own.cards[0].index if count > 1 else None, programs))
    return lanes, plans


def _most(grid: Grid, machines: Sequence[Machine]) -> int:
    several = any((run.config.learner.world_size or 1) > 1 or (run.config.rollout.actors or 1) > 1 for run in grid.runs)
    if os.environ.get("RAY_ADDRESS") or several or any(machine != machines[0] for machine in machines):
        return 1
    return max(min(len(machines[0].cards), len(machines[0].cores)), 1)


def _plans(grid: Grid, machines: Sequence[Machine], count: int) -> dict[str, Plan]:
    """Plan every run on its lane's part of its machine, with its part of the sweep's budget. count: number of lanes."""
    plans, total = {}, grid.settings.seconds
    for number, (run, machine) in enumerate(zip(grid.runs, machines, strict=True)):
        run.config = resolve_model(run.config, machine)
        if total is not None:
            run.config = changed(run.config, {"budget.minutes": total / len(grid.runs[::count]) / 60})
        check_functions(run.config.reward)
        plan = plans[run.name] = plan_measured(run.config, part(machine, number % count, count), grid.folder.parent)
        if not run.record.finished():
            check_adapter(run.config, run.config.model.path, plan.shape)
    return plans


def part(machine: Machine, number: int, count: int) -> Machine:
    """Return the part of a machine that one of several lanes has: a GPU of its own and an equal part of the rest."""
    if count == 1:
        return machine
    each = len(machine.cores) // count
    own = with_gpus(machine.cards[number : number + 1], machine.cores[number * each : (number + 1) * each])
    return replace(own, host_memory=machine.host_memory and machine.host_memory // count, mps=False)

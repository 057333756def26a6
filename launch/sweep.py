"""Carry out a grid of runs: every list is an axis, and each run has its own process and folder.

    python launch/sweep.py conf=NAME 'ranks=[8,64,256]' 'seeds=[0,1,2]' ['key=[a,b]' …] [key=value …]
    python launch/sweep.py help sweep

With benchmarks, each base model and the result of each run are evaluated on them. A recipe can state all this.

Examples:

    python launch/sweep.py conf=quickstart 'ranks=[8,64,256]' 'seeds=[0,1,2]' budget.minutes=8
    python launch/sweep.py conf=r64_instruct 'learner.learning_rate=[1e-5,3e-5,1e-4]' sweep.hours=24
    python launch/sweep.py conf=paper plan=true device=A40 budget.price_per_hour=0.30
    python launch/sweep.py conf=paper sweep.name=two 'models=[instruct,llama]' 'benchmarks=[aime24,math500]'

The same command continues an interrupted sweep.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import os
import sys
from functools import partial

from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.models.adapters import pinned
from microbudget_rl.conf.command import PlainConsole, command, outliving_terminal
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.help import explain
from microbudget_rl.conf.installation import require
from microbudget_rl.conf.load import command_line
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.launch.evaluation import prepare
from microbudget_rl.launch.hardware.machine import check_build, detect
from microbudget_rl.launch.plan.refusal import check_plan
from microbudget_rl.launch.session.admission import check_settings, take_over
from microbudget_rl.launch.sweep_runs.grid import check_comparable, check_known, check_sources, read_grid
from microbudget_rl.launch.sweep_runs.jobs import Grid
from microbudget_rl.launch.sweep_runs.plan_view import SweepPlan, divide, plan_runs
from microbudget_rl.launch.sweep_runs.scheduler import Scheduler


@command("sweep.py", partial(explain, usage=__doc__))
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 all jobs are finished, 1 some are not, 2 bad input, 130 or 143 interrupted."""
    console = PlainConsole()
    grid = read_grid(arguments)
    check_comparable(grid)
    machines = divide(detect(grid.runs[0].config.device), grid)
    plan_runs(grid, machines)
    if grid.plan:
        console.print(SweepPlan(grid, len(machines)).shown())
        return 0
    require("ray", "vllm")
    check_runs(grid, len(machines))
    pin_models(grid)
    check_known(grid)
    check_sources(grid)
    for base in () if all(job.finished for job in (*grid.bases, *grid.evaluations)) else grid.bases:
        prepare(command_line([*base.arguments, "plan=true"], CommandLine), machines[0], console)
    take_over(grid.folder, "sweep", f"sweep {grid.name!r}")
    with outliving_terminal():
        return Scheduler(grid, machines, console).run()


def check_runs(grid: Grid, workers: int) -> None:
    """Raise BadInput if a run does not fit, was begun with other settings, or has too small a budget."""
    joined = bool(os.environ.get("RAY_ADDRESS"))
    for run in grid.runs:
        if run.config.run.mps and (joined or workers > 1):
            why = f"{workers} runs at a time would each start a service for all GPUs: set CUDA_VISIBLE_DEVICES=0, or"
            why = "the service of a cluster belongs to who started its nodes:" if joined else why
            raise BadInput(f"run.nvidia_mps=on: {why} leave it out")
        if not joined:  # a run surveys the cluster it joins
            check_plan(run.plan)
            check_build(run.config, run.plan.machine)
        check_settings(run.plan.config, run.record)
    idle = [] if joined else [run for run in grid.runs if run.plan.estimate and not run.plan.estimate.updates]
    if idle:
        budget = duration(idle[0].config.budget.seconds)
        raise BadInput(
            f"{idle[0].name} has {budget}, too little for one update here ({len(idle)} of {len(grid.runs)} runs in all)"
            ": raise the budget, evaluate less by eval.problems or eval.n, or list fewer values"
        )


def pin_models(grid: Grid) -> None:
    """Let all runs of a model begin from the same commit or digest: that of begun runs, else the present one."""
    pins = {run.config.model.path: run.config.model.pin for run in grid.runs if run.config.model.pin}
    for run in grid.runs:
        model = run.config.model
        pins[model.path] = model.pin or pins.get(model.path) or pinned(run.config).model.pin
        run.set("model.pin", pins[model.path])
        pinned(run.config)  # refuses an adapter to start from that was made for another commit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A simulation fitted on one real run against another run, of another batch, staleness and rank.

`python -m launch.benches.simulation FITTED OTHER` compares the folders of two runs that were made on this machine.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from actors.storage.run_record import RunRecord
from launch.bench import show
from launch.benches.report import Report, Row
from launch.plan.fitting import WARM_UP, measure, read_config
from launch.plan.forecast import between
from launch.plan.machine import detect
from launch.plan.plan import make_plan
from launch.plan.simulation import simulate

MINUTES = 5

FITTED: tuple[str, ...] = ()
OTHER = (
    "learner.problems_per_update=8",
    "learner.max_staleness=2",
    "lora.rank=128",
)


def run() -> Report:
    with TemporaryDirectory() as folder:
        return compare(carry_out(folder, "fitted", FITTED), carry_out(folder, "other", OTHER))


def carry_out(folder: str, name: str, settings: tuple[str, ...]) -> Path:
    """One run of the quickstart in a process of its own; its folder."""
    command = [
        sys.executable,
        "launch/run.py",
        "conf=quickstart",
        f"run.name={name}",
        f"run.folder={folder}",
        f"budget.minutes={MINUTES}",
        "dashboard.port=0",
        *settings,
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Path(folder) / name


def compare(fitted: Path, other: Path) -> Report:
    """Predicted (ours) and real (baseline) of the other run."""
    machine, config = detect("cpu"), read_config(other)
    plan = make_plan(config, machine, measure(fitted, machine))
    assert plan.costs is not None
    simulated = simulate(plan.config, plan.costs, plan.workload, plan.placement, plan.at_once)
    rows = RunRecord(other).rows()
    expected, real = between(simulated.rows, WARM_UP), between(rows, WARM_UP)
    name = f"{config.learner.problems_per_update} problems, η={config.learner.max_staleness}, r={config.lora.rank}"
    return Report(
        (
            Row(name, "updates", simulated.updates, len(rows)),
            Row(name, "seconds_per_update", expected.update_s, real.update_s),
            Row(name, "rollouts_idle", expected.rollouts_idle, real.rollouts_idle),
            Row(name, "learner_idle", expected.learner_idle, real.learner_idle),
        ),
        {},
        ("ours: predicted from the other run alone; baseline: what happened. idle: shares of the time.",),
    )


if __name__ == "__main__":
    report = compare(Path(sys.argv[1]), Path(sys.argv[2]))
    show("simulation", report)
    Console().print(report.notes[0])

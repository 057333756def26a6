"""Check whether a run can start on this machine, and measure how fast it is.

    python launch/doctor.py conf=NAME [key=value ...] [measure=false]

Examples:

    python launch/doctor.py conf=quickstart                     # on any machine
    python launch/doctor.py conf=r256_instruct                  # on a rented GPU, before a long run
    python launch/doctor.py conf=r256_instruct measure=false    # without measuring
    python launch/doctor.py conf=r256_instruct run.nvidia_mps=off    # the speed with that setting

The check of driver, GPUs, Python, compiler, disk, memory and the model takes seconds. Then the run's own engine and
learner work for a minute or two; under NVIDIA's MPS three times, with 80, 90 and 100 % of the multiprocessors for the
learner. The doctor prints the number of updates that the recipe would make, on a GPU also with other settings to copy,
and keeps the measurement for later plans. The exit code is 1 if something forbids a run.
"""

if __name__ == "__main__":
    import conf.first  # noqa: F401

import asyncio
import sys
from importlib.metadata import version

from rich.console import Console

from actors.errors import ActorDied, Halted
from actors.formats import duration
from conf.command import PlainConsole, command
from conf.load import load
from conf.settings import changed
from conf.signals import scratch_folder
from launch.checkup.findings import Finding, examine
from launch.checkup.measurement import estimates, keep_measured, measure_actors
from launch.plan.calibration import kept_in, plan_measured
from launch.plan.plan import Plan
from launch.plan.view import conclusion, source
from launch.session.preparation import command_line, commit, planned

MEASURE = ("measure=true", "measure=false")


@command("doctor.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 a run can start, 1 it cannot, 2 bad input."""
    measures = "measure=false" not in arguments
    config = load([argument for argument in arguments if argument not in MEASURE])
    console = PlainConsole()
    console.print(command_line("doctor.py", arguments))
    console.print(f"microbudget-rl {version('microbudget-rl')} {commit()}".strip())
    findings, plan = examine(config)
    for found in findings:
        console.print(found.line)
    if plan is None:
        return 1
    if plan.costs is None:
        console.print("The rates of this GPU are not known: its first run measures them for later plans.")
        return 0
    with planned(plan.undecided, plan.machine) as (plan, notes):
        for _, text, subject in notes:
            if subject == "weights":
                console.print(Finding("shared weights", "warning", text).line)
        if measures:
            try:
                calibrate(plan, console)
            except (ActorDied, Halted) as error:
                console.print(Finding("measuring", "bad", str(error)).line)
                return 1
            plan = plan_measured(plan.undecided, plan.machine)
    console.print(conclusion(plan))
    console.print(source(plan))
    return 0


def calibrate(plan: Plan, console: Console) -> None:
    """Measure the run's actors, and print and keep the result. Raises ActorDied if they cannot work."""
    from actors.models.files import locate
    from actors.runtime.ray_session import BackgroundContext, clear_session, ray_session

    model_path = locate(plan.config.model)
    console.print("Measuring for one to five minutes; engine and learner start first ...")
    with scratch_folder("doctor-") as folder:
        try:
            with BackgroundContext(ray_session(plan.config, plan.placement, folder, dashboard=False)):
                found = asyncio.run(
                    measure_actors(plan, model_path, folder, lambda *said: console.print(": ".join(said)))
                )
        finally:
            clear_session(folder)
    console.print("\n".join(next(iter(found.values())).lines))
    kept = [
        keep_measured(measured, changed(plan.config, {"run.nvidia_mps_percentage": percentage}), plan.machine)
        for percentage, measured in found.items()
    ]
    if all(kept):
        console.print(f"Kept for the next plan in {kept_in(plan.config)}")
    else:
        console.print("Not kept for plans: the measurement of a whole run on this machine is better")
    if plan.machine.gpus:
        console.print("Settings by these measurements; copy one to the run's command:")
        for name, each in sorted(estimates(plan, found).items(), key=lambda item: item[1].update_s):
            console.print(f"  {name}: {duration(each.update_s)} per update, {each.updates:,} updates")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

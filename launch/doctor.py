"""Say whether this machine is fit for a run, and how fast it is.

    python launch/doctor.py conf=NAME [key=value ...] [measure=false]

Examples:

    python launch/doctor.py conf=quickstart                     # on any machine
    python launch/doctor.py conf=r256_instruct                  # on a rented card, before a day of it
    python launch/doctor.py conf=r256_instruct measure=false    # without the measuring
    python launch/doctor.py conf=r256_instruct run.mps=true     # how fast with that setting

It looks at driver, cards, Python, compiler, disk, memory and the model, which takes seconds. Then the run's own engine
and learner work for a minute or two: it prints how many updates the recipe would make, and keeps what was measured for
later plans. Its exit code is 1 where something forbids a run.
"""

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from actors.errors import ActorDied
from actors.formats import duration
from conf.command import PlainConsole, command
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from launch.checkup.look import (
    Finding,
    look_at_cards,
    look_at_machine,
    look_at_model,
    look_at_resources,
    look_at_software,
    render,
)
from launch.checkup.measurement import Measured, measure, store
from launch.hardware.cards import choose, show_only
from launch.hardware.machine import detect
from launch.hardware.mps import check_mps, mps_service
from launch.plan.calibration import kept_in, recall
from launch.plan.plan import Plan, make_plan
from launch.plan.refusal import check_plan
from launch.session.preparation import command_line, commit
from launch.session.resume import resolve_dtype

MEASURE = "measure="


@command("doctor.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 fit for a run, 1 not, 2 bad input."""
    config, measures = read(arguments)
    console = PlainConsole()
    console.print(command_line("doctor.py", arguments), soft_wrap=True)
    console.print(f"microbudget-rl {version('microbudget-rl')} {commit()}".strip())
    plan = look(config, console)
    if plan is None:
        return 1
    if plan.costs is None:
        console.print("No rates are known of this card: its first run measures it, and plans after that say how long.")
        return 0
    if measures:
        try:
            examine(plan, console)
        except ActorDied as error:
            console.print(render([Finding("measuring", "bad", str(error))]))
            return 1
    console.print(outlook(make_plan(config, plan.machine, recall(config, plan.machine))))
    return 0


def read(arguments: list[str]) -> tuple[Config, bool]:
    """Return the recipe, and whether to measure."""
    measure = [argument for argument in arguments if argument.startswith(MEASURE)]
    if measure and measure[-1] not in ("measure=true", "measure=false"):
        raise BadInput(f"{measure[-1]}: give measure=true or measure=false")
    return load([argument for argument in arguments if argument not in measure]), measure[-1:] != ["measure=false"]


def outlook(plan: Plan) -> str:
    """Say how many updates the recipe makes, and how that is known."""
    expected, budget_s = plan.estimate, plan.config.budget.seconds
    assert expected is not None
    known = f"measured here: {plan.calibration.of}" if plan.calibration.of else "by the plan: nothing was measured here"
    return (
        f"{plan.config.run.name}: an update takes about {duration(expected.update_s)}, about {expected.updates:,} in"
        f" {duration(budget_s)} ({known})"
    )


def look(config: Config, console: Console) -> Plan | None:
    """Print what there is to say of machine, software and model; return the plan, None if something forbids a run."""
    findings = list(look_at_cards(config.device)) if config.device != "cpu" else []
    plan = None
    if not any(found.state == "bad" for found in findings):
        machine = detect(config.device)
        resolve_dtype(config, machine)
        findings = [look_at_machine(machine), *findings, *look_at_software(machine), look_at_model(config)]
        try:
            plan = make_plan(config, machine, recall(config, machine))
            check_plan(plan)
            findings += look_at_resources(plan, Path(config.run.folder, config.run.name))
        except BadInput as error:
            findings.append(Finding("plan", "bad", str(error)))
    console.print(render(findings))
    return None if any(found.state == "bad" for found in findings) else plan


def examine(plan: Plan, console: Console) -> None:
    """Have the run's actors work, print how fast they are, and keep it. Raises ActorDied if they cannot."""
    from actors.models.files import locate
    from actors.runtime.ray_session import clear_session, ray_session

    check_mps(plan.config, plan.placement, joined=False)
    model_path = locate(plan.config.model)
    show_only(choose(detect(plan.config.device).cards, plan.placement, plan.needed("learner GPU")))
    console.print("Measuring for a minute or two; engine and learner start first ...")
    with TemporaryDirectory(prefix="doctor-") as name:
        folder = Path(name)
        with mps_service(plan.config), ray_session(plan.config, plan.placement, folder, dashboard=False):
            found = asyncio.run(measure(plan, model_path, folder, lambda *said: console.print(": ".join(said))))
        clear_session(folder)
    kept = store(found, plan.config, plan.machine)
    for line in lines(found):
        console.print(line)
    not_kept = "Not kept for plans: a whole run has been measured on this machine, which says more"
    console.print(f"Kept for the next plan in {kept_in(plan.config)}" if kept else not_kept)


def lines(found: Measured) -> list[str]:
    """Return what was measured, as a person reads it."""
    rows = [
        f"{name:<8} {duration(found.seconds[name])}, {found.seconds[name] / found.predicted[name]:.2f} of the plan's"
        for name in found.seconds
    ]
    return [
        f"generates {found.decoded:,.0f} tokens/s and learns from {found.learned:,.0f}, each alone",
        *rows,
        f"both at once take {1 / found.together:.0%} of what they take one after the other",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

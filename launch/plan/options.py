"""Plans of the same run with other settings or on other machines."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from actors.runtime.placement import most_actors
from conf.catalogue import GPU_DTYPE
from conf.errors import BadInput
from conf.load import flatten
from conf.schema import affecting
from conf.schema.learner import LearnerConfig
from launch.plan.estimate import Estimate
from launch.plan.memory import misfit
from launch.plan.plan import Change, Plan, with_problems
from launch.plan.refusal import advice
from launch.plan.time import EFFICIENCY, LEARN_RANGE


def estimate_all(plans: Mapping[str, Plan]) -> dict[str, Estimate | None]:
    """Return the estimate of each plan with its problems counted, by name, or None. Equal plans are estimated once."""
    known: dict[str, Estimate | None] = {}
    found, same = {}, ("run.name", *affecting("repetition"))
    for name, plan in plans.items():
        settings = {key: value for key, value in flatten(asdict(plan.config)).items() if key not in same}
        like = repr((sorted(settings.items()), plan.machine.described, len(plan.machine.cores)))
        if like not in known:
            known[like] = with_problems(plan).estimate
        found[name] = known[like]
    return found


def options(plan: Plan) -> dict[str, Estimate]:
    """Return the estimates of other choices, by name: a run that is not deterministic, no staleness, MPS on or off,
    other splits, one GPU more, and slower and faster learning if nothing was measured on the GPU.
    """
    machine, ranks, measured = plan.machine, len(plan.placement.learners), plan.calibration
    others: dict[str, Plan] = {}

    def add(name: str, change: Change) -> None:
        others[name] = plan.again({"learner.world_size": ranks} | change)

    if plan.config.run.deterministic:
        staleness = LearnerConfig().max_staleness
        add("run.deterministic=false", {"run.deterministic": False, "learner.max_staleness": staleness})
    if plan.config.learner.max_staleness:
        add("learner.max_staleness=0", {"learner.max_staleness": 0})
    if machine.gpus:
        for rate in () if measured.of else LEARN_RANGE:
            assumed = replace(measured, learn=EFFICIENCY["cuda", GPU_DTYPE].learn / rate)
            others[f"learning at {rate:.0%} of the rate"] = replace(plan, calibration=assumed)
        if plan.other_mps:
            others[f"run.nvidia_mps={plan.other_mps.config.run.nvidia_mps}"] = plan.other_mps
        most = most_actors(machine.cores, machine.gpus)
        for number in (ranks - 1, ranks + 1):
            if 1 <= number <= most:
                add(f"learner.world_size={number}", {"learner.world_size": number})
        more = replace(machine, gpus=machine.gpus + 1)
        others[more.described] = plan.again({}, more)
    return {name: other.estimate for name, other in others.items() if other.estimate}


def scale(plan: Plan, gpus: list[int]) -> Iterator[Plan]:
    """Plan the run on each number of GPUs: with its own batch, then with one that grows with the GPUs.

    Raises BadInput if there is no GPU, its rates are not known, or the run does not fit.
    """
    machine = plan.machine
    if gpus and not (machine.gpus and machine.rates):
        raise BadInput(f"simulate={gpus}: there is no GPU whose rates are known; name one, such as device=A40")
    problems = plan.config.learner.problems_per_update
    for count, factor in [(count, 1) for count in gpus] + [(count, count) for count in gpus if count > 1]:
        cores = tuple(range(len(machine.cores) * count))
        larger = replace(machine, gpus=count, cores=cores)
        scaled = plan.again({"learner.problems_per_update": problems * factor}, larger)
        if not scaled.fits:
            raise BadInput(f"simulate={gpus}: on {scaled.machine.described}, {misfit(scaled)}; {advice(scaled)}")
        yield scaled

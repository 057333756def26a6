"""Whether an evaluation fits its machine: the half of a run's plan that is about engines."""

from actors.placement import Placement
from conf.errors import BadInput
from conf.schema import Config, ShapeConfig
from launch.calibration import UNMEASURED
from launch.machine import Machine
from launch.memory import cache_tokens, engine_memory
from launch.plan import NEWER, Plan, misfit
from launch.roofline import workload_of


def check_engines(config: Config, shape: ShapeConfig, machine: Machine, placement: Placement) -> None:
    """Raise BadInput if the card cannot compute in the model's dtype, or an engine holds no model or no sample there.

    What the host needs is for `launch.room` to ask, once nothing is left on it of a process before.
    """
    plan = plan_engines(config, shape, machine, placement)
    if not plan.fits:
        raise BadInput(f"model.path={config.model.path}: {misfit(plan)}; {_remedy(plan)}")


def plan_engines(config: Config, shape: ShapeConfig, machine: Machine, placement: Placement) -> Plan:
    """The plan of engines alone, without its times. An evaluation asks them for one sample at a time, so that of their
    cache only that has to fit.
    """
    memory = tuple(entry for entry in engine_memory(config, shape, placement, 1) if not entry.elastic)
    room: dict[str, float | None] = {}
    if machine.gpus:
        room["rollout GPU"] = machine.gpu_memory * placement.rollouts[0].memory
    return Plan(
        asked=config,
        config=config,
        machine=machine,
        placement=placement,
        shape=shape,
        memory=memory,
        room=room,
        cache_tokens=cache_tokens(config, shape, placement, memory, room),
        sequences=0,
        workload=workload_of(config),
        costs=None,
        estimate=None,
        calibration=UNMEASURED,
    )


def _remedy(plan: Plan) -> str:
    if not plan.computes:
        return (
            NEWER if plan.config.model.dtype == plan.machine.dtype else f"it can with model.dtype={plan.machine.dtype}"
        )
    if plan.machine.gpus:
        return "give smaller rollout.max_concurrent_samples or eval.max_response_tokens, or take a larger card"
    return "give larger rollout.kv_cache_gib"

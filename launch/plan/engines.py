"""Whether the engines of an evaluation fit their machine."""

from actors.runtime.placement import Placement
from conf.errors import BadInput
from conf.schema import Config, ShapeConfig
from launch.hardware.machine import Machine
from launch.plan.memory import Fit, available_memory, cache_tokens, engine_memory, misfit
from launch.plan.refusal import NEWER_CARD


def check_engines(config: Config, shape: ShapeConfig, machine: Machine, placement: Placement) -> None:
    """Raise BadInput if the card cannot compute in the model's dtype, or an engine holds no model or no sample there.

    What the host needs is for `launch.plan.host_needs` to ask, once nothing is left on it of a process before.
    """
    fit = fit_of_engines(config, shape, machine, placement)
    if not fit.fits:
        raise BadInput(f"model.path={config.model.path}: {misfit(fit)}; {_remedy(fit)}")


def fit_of_engines(config: Config, shape: ShapeConfig, machine: Machine, placement: Placement) -> Fit:
    """Return the fit of engines alone on their cards. An evaluation asks them for one sample at a time, so that of
    their cache only that has to fit.
    """
    memory = tuple(entry for entry in engine_memory(config, shape, placement, 1) if not entry.elastic)
    available = {place: has for place, has in available_memory(machine, placement).items() if place != "host"}
    tokens = cache_tokens(config, shape, placement, memory, available)
    return Fit(config, machine, placement, shape, memory, available, tokens)


def _remedy(fit: Fit) -> str:
    if not fit.computes:
        able = fit.machine.dtype
        return NEWER_CARD if fit.config.model.dtype == able else f"it can with model.dtype={able}"
    if fit.machine.gpus:
        return "give smaller rollout.max_concurrent_samples or eval.max_response_tokens, or take a larger card"
    return "give larger rollout.kv_cache_gib"

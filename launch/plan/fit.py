"""Whether a configuration fits a machine, and if not, why."""

import math
from dataclasses import dataclass

from actors.models.sizes import longest_sample
from actors.runtime.placement import Placement
from conf.devices import CARD_DTYPE
from conf.schema import Config, ShapeConfig
from launch.hardware.machine import GIB, Machine
from launch.plan.memory import Memory


@dataclass(frozen=True)
class Fit:
    """What a configuration needs of a machine.

    memory: the needs of each place, part by part
    available: bytes that each place has, None if unknown
    cache_tokens: tokens that the KV cache of one engine holds
    """

    config: Config
    machine: Machine
    placement: Placement
    shape: ShapeConfig
    memory: tuple[Memory, ...]
    available: dict[str, float | None]
    cache_tokens: int

    def needed(self, place: str) -> float:
        """Return the bytes that all parts in one place need."""
        return sum(entry.bytes for entry in self.memory if entry.place == place)

    @property
    def overfull(self) -> list[str]:
        """Places that need more memory than they have."""
        return [place for place, has in self.available.items() if has is not None and self.needed(place) > has]

    @property
    def computes(self) -> bool:
        """Whether the machine computes in the model's dtype, as far as is known."""
        dtype, rates = self.config.model.dtype, self.machine.rates
        if self.machine.gpus:
            return dtype == CARD_DTYPE and rates.get(dtype, math.inf) > 0
        return dtype in rates

    @property
    def cache_too_small(self) -> bool:
        """Whether an engine's KV cache cannot hold one sample, with which vLLM does not start."""
        return self.cache_tokens < longest_sample(self.config)

    @property
    def fits(self) -> bool:
        return self.computes and not self.overfull and not self.cache_too_small


def misfit(fit: Fit) -> str:
    """Say why a configuration does not fit."""
    dtype, machine = fit.config.model.dtype, fit.machine
    if not fit.computes:
        if machine.gpus and dtype != CARD_DTYPE:
            return f"vLLM serves LoRA on a card in {CARD_DTYPE}, not in model.dtype={dtype}"
        return f"the {machine.name} cannot compute in model.dtype={dtype}"
    if not fit.overfull:
        return (
            f"an engine's KV cache holds {fit.cache_tokens:,} tokens, and a sample may have"
            f" {longest_sample(fit.config):,}, prompt included"
        )
    place = fit.overfull[0]
    has = fit.available[place] or 0
    return f"the {place} needs {fit.needed(place) / GIB:.1f} GiB and has {has / GIB:.1f} on {machine.name}"

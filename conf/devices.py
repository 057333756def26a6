"""The cards a plan knows."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

CARD_DTYPE = "bfloat16"
"""Of models on a card: vLLM's LoRA kernels there take nothing else that the learner computes in."""


@dataclass(frozen=True)
class Device:
    """A card.

    memory_gib: GiB that the driver reports.
    bandwidth_gbs: 10⁹ bytes/s.
    bfloat16: dense rate, 10¹² FLOP/s, None for a card that cannot compute in it.
    """

    name: str
    memory_gib: float
    bandwidth_gbs: float
    bfloat16: float | None

    @property
    def rates(self) -> dict[str, float]:
        """FLOP/s by dtype, 0 for one the card cannot compute in."""
        return {CARD_DTYPE: (self.bfloat16 or 0.0) * 1e12}


@cache
def devices() -> dict[str, Device]:
    """Cards by name, from devices.yaml."""
    table = yaml.safe_load(Path(__file__).with_name("devices.yaml").read_text("utf-8"))
    return {name: Device(name, **row) for name, row in table.items()}

"""The cards a plan knows."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Device:
    """memory_gib: GiB that the driver reports. bandwidth_gbs: 10⁹ bytes/s. bfloat16, float32: dense rates, 10¹² FLOP/s,
    None for a dtype the card cannot compute in.
    """

    name: str
    memory_gib: float
    bandwidth_gbs: float
    bfloat16: float | None
    float32: float

    @property
    def rates(self) -> dict[str, float]:
        """FLOP/s by dtype."""
        known = {"bfloat16": self.bfloat16, "float32": self.float32}
        return {dtype: rate * 1e12 for dtype, rate in known.items() if rate is not None}


@cache
def devices() -> dict[str, Device]:
    """Cards by name, from devices.yaml."""
    table: Any = OmegaConf.load(Path(__file__).with_name("devices.yaml"))
    return {name: Device(name, **row) for name, row in table.items()}


def device_names() -> list[str]:
    return list(devices())

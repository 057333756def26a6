"""The cards a plan knows."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Device:
    """memory_gib: GiB that the driver reports. bandwidth_gbs: 10⁹ bytes/s. tflops: dense bf16, 10¹² FLOP/s."""

    name: str
    memory_gib: float
    bandwidth_gbs: float
    tflops: float


@cache
def devices() -> dict[str, Device]:
    """Cards by name, from devices.yaml."""
    table: Any = OmegaConf.load(Path(__file__).with_name("devices.yaml"))
    return {name: Device(name, **row) for name, row in table.items()}


def device_names() -> list[str]:
    return list(devices())

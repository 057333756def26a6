"""The cards a plan knows."""

import re
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


MADE_BY = re.compile(r"NVIDIA|GEFORCE|TESLA|QUADRO|SXM\d*|GIB|GB|[ _-]")
"""What people write of a card's name that tells it from no other."""

MEMORY = re.compile(r"[ _-]\d+ ?GI?B$")

USUAL = {"A100": "A100-40"}
"""Of cards that come with more and with less memory, the smaller: what fits there fits both."""


def known_as(name: str) -> str:
    """Return the name of a card in devices.yaml for one that people use, such as 4090, RTX 4090, a100 or A100 80GB; the
    name itself if there is none.
    """

    def bare(text: str) -> str:
        return MADE_BY.sub("", text.upper())

    if name.lower() in ("auto", "cpu"):
        return name.lower()
    asked, less = bare(name), bare(MEMORY.sub("", name.upper()))
    cards = {bare(short): known for short, known in USUAL.items()} | {bare(known): known for known in devices()}
    spellings = (asked, asked.removeprefix("RTX"), f"RTX{asked}", less, f"RTX{less}")
    return next((cards[spelling] for spelling in spellings if spelling in cards), name)


@cache
def devices() -> dict[str, Device]:
    """Cards by name, from devices.yaml."""
    table = yaml.safe_load(Path(__file__).with_name("devices.yaml").read_text("utf-8"))
    return {name: Device(name, **row) for name, row in table.items()}

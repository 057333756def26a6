"""The NVIDIA cards of this machine, as nvidia-smi shows them, and which of them a run uses."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from actors.runtime.host_resources import MIB, amount
from actors.runtime.placement import Placement
from conf.devices import devices
from conf.errors import BadInput

COLUMNS = ("index", "uuid", "name", "memory.total", "memory.free")

ANSWER_S = 20.0
"""Seconds the driver may take to answer: where nothing keeps the cards awake, it wakes them one after another."""


@dataclass(frozen=True)
class Card:
    """One card.

    index: in nvidia-smi's order, which is that of PCI buses
    memory: bytes in all
    free: bytes that no process holds, None where the driver does not say
    """

    index: str
    name: str
    memory: int
    free: int | None


def find_cards(device: str = "auto") -> list[Card]:
    """Return the cards this process may use: all (`auto`), or those with a name of devices.yaml.

    None without a working driver. Raises BadInput if the driver hangs and no name is given to plan by, or if it does
    not say how large a card is.
    """
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    query = [tool, f"--query-gpu={','.join(COLUMNS)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        if device != "auto":
            return []
        why = error.strerror if isinstance(error, OSError) else f"not within {ANSWER_S:g} s"
        raise BadInput(f"{tool} does not answer ({why}): restart the driver, or give device=cpu") from error
    if answer.returncode != 0:
        return []
    return parse_cards(answer.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"), device)


def parse_cards(table: str, visible: str | None, device: str = "auto") -> list[Card]:
    """Return the cards of the device's name in nvidia-smi's table of COLUMNS, sizes in MiB.

    visible: the value of CUDA_VISIBLE_DEVICES, which selects and orders them; None for all
    """
    cells = ([cell.strip() for cell in line.split(",")] for line in table.splitlines())
    rows = [row for row in cells if len(row) == len(COLUMNS)]  # other lines say that there are none
    if visible is not None:
        wanted = [entry for part in visible.split(",") if (entry := part.strip())]
        rows = [row for entry in wanted for row in rows if row[0] == entry or row[1].startswith(entry)]
    return [_card(index, name, *sizes) for index, _, name, *sizes in rows if device in ("auto", card_of(name))]


def _card(index: str, name: str, total: str, free: str) -> Card:
    if not total.isdigit():
        raise BadInput(
            f"nvidia-smi gives {total} for the memory of card {index}, {name}, as it does where a card has no memory of"
            " its own, and no plan is possible without: leave it out, by CUDA_VISIBLE_DEVICES or with device=cpu"
        )
    return Card(index, name, int(total) * MIB, int(free) * MIB if free.isdigit() else None)


def card_of(name: str) -> str | None:
    """Return the devices.yaml name of a card that nvidia-smi calls, say, `NVIDIA A100-SXM4-80GB`."""
    words = name.upper().replace("-", " ").split()
    joined = "".join(words)
    if "A100" in words:
        return "A100-80" if "80GB" in joined else "A100-40"
    found = [known for known in devices() if set(known.upper().split("-")).issubset(words)]
    if found:
        return max(found, key=len)
    return next((known for known in devices() if known.startswith("RTX") and known.upper() in joined), None)


def choose(cards: Sequence[Card], placement: Placement, learner: float) -> list[Card]:
    """Return as many cards as a placement takes, the first that have enough free. learner: bytes that a rank needs.

    An engine takes its whole share and does not start where that is not free; a rank with a card of its own needs no
    more than an engine does. Raises BadInput if other processes hold too much.
    """

    def needs(card: Card) -> float:
        return placement.rollouts[0].memory * card.memory + (learner if placement.shared else 0.0)

    count = round(sum(share.gpus for share in (*placement.rollouts, *placement.learners)))
    taken = [card for card in cards if card.free is not None and card.free < needs(card)]
    if taken and len(cards) - len(taken) < count:
        card = taken[0]
        raise BadInput(
            f"card {card.index}, {card.name}, has {amount(card.free or 0)} of {amount(card.memory)} free and"
            f" {amount(needs(card))} are needed: nvidia-smi shows what holds the rest; end that, or leave the card out"
            " by CUDA_VISIBLE_DEVICES"
        )
    return [card for card in cards if card not in taken][:count]


def show_only(cards: Sequence[Card]) -> None:
    """Let all that this process starts see only these cards, in this order; without cards nothing is hidden."""
    if cards:
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # CUDA's own is fastest first
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(card.index for card in cards)

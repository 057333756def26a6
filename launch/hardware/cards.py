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

COLUMNS = ("index", "uuid", "name", "memory.total", "memory.free", "mig.mode.current")

ANSWER_S = 20.0
"""Seconds the driver may take to answer: where nothing keeps the cards awake, it wakes them one after another."""

NO_MIG = "a run takes whole cards, and vLLM 0.32 takes the number of a MIG device for that of a card"


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

    None without a working driver. Raises BadInput if the driver hangs and no name is given to plan by, if it does not
    say how large a card is, or if a card is divided by MIG.
    """
    try:
        answer = ask_driver(COLUMNS)
    except (OSError, subprocess.TimeoutExpired) as error:
        if device != "auto":
            return []
        why = error.strerror if isinstance(error, OSError) else f"not within {ANSWER_S:g} s"
        raise BadInput(f"nvidia-smi does not answer ({why}): restart the driver, or give device=cpu") from error
    if answer is None or answer.returncode != 0:
        return []
    return parse_cards(answer.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"), device)


def ask_driver(columns: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    """Have nvidia-smi print these columns of all cards, sizes in MiB; None where there is no nvidia-smi.

    Raises OSError if it cannot be started, TimeoutExpired if it does not answer.
    """
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    query = [tool, f"--query-gpu={','.join(columns)}", "--format=csv,noheader,nounits"]
    return subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_S)


def rows_of(table: str, columns: Sequence[str]) -> list[list[str]]:
    """Return the cells of the lines that describe a card; other lines say that there are none."""
    rows = ([cell.strip() for cell in line.split(",")] for line in table.splitlines())
    return [row for row in rows if len(row) == len(columns)]


def parse_cards(table: str, visible: str | None, device: str = "auto") -> list[Card]:
    """Return the cards of the device's name in nvidia-smi's table of COLUMNS, sizes in MiB.

    visible: the value of CUDA_VISIBLE_DEVICES, which selects and orders them; None for all
    """
    rows = rows_of(table, COLUMNS)
    if visible is not None:
        wanted = [entry for part in visible.split(",") if (entry := part.strip())]
        if rows and (divided := [entry for entry in wanted if entry.startswith("MIG-")]):
            raise BadInput(f"CUDA_VISIBLE_DEVICES={divided[0]}: {NO_MIG}; name a card that is not divided")
        rows = [row for entry in wanted for row in rows if means(entry, row)]
    return [_card(index, name, *sizes) for index, _, name, *sizes in rows if device in ("auto", card_of(name))]


def means(entry: str, row: Sequence[str]) -> bool:
    """Return whether an entry of CUDA_VISIBLE_DEVICES means the card of a row, which begins with index and uuid."""
    return entry == row[0] or row[1].startswith(entry)


def _card(index: str, name: str, total: str, free: str, mig: str) -> Card:
    if mig == "Enabled":
        raise BadInput(f"card {index}, {name}, is {without_mig(index)}")
    if not total.isdigit():
        raise BadInput(
            f"nvidia-smi gives {total} for the memory of card {index}, {name}, as it does where a card has no memory of"
            " its own, and no plan is possible without: leave it out, by CUDA_VISIBLE_DEVICES or with device=cpu"
        )
    return Card(index, name, int(total) * MIB, int(free) * MIB if free.isdigit() else None)


def without_mig(index: str) -> str:
    """Say why a card that is divided cannot be used, and what to do."""
    return (
        f"divided by MIG: {NO_MIG}; switch it off (nvidia-smi -i {index} -mig 0), or leave the card out by"
        " CUDA_VISIBLE_DEVICES"
    )


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

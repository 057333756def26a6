"""NVIDIA's driver and its cards, as nvidia-smi shows them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from launch.checkup.findings import Finding
from launch.hardware import cards
from launch.hardware.cards import ask_driver, card_of, means, rows_of, without_mig

LEAST_DRIVER = 580
"""That CUDA 13 needs, for which vLLM's builds are; launch/setup.sh refuses older ones too."""

LEAST_CAPABILITY = 8
"""In which vLLM serves LoRA in bfloat16: Ampere."""

COLUMNS = (*cards.COLUMNS, "driver_version", "compute_cap")

HELD = 0.05
"""Share of a card's memory that may be taken before a run: a display, or what the driver keeps."""


def look_at_cards(device: str = "auto") -> Iterator[Finding]:
    """Yield what there is to say of driver and cards; one finding where there is none. device: as of `find_cards`."""
    try:
        answer = ask_driver(COLUMNS)
    except (OSError, subprocess.TimeoutExpired):
        yield Finding("driver", "bad", f"nvidia-smi does not answer within {cards.ANSWER_S:g} s; restart the machine")
        return
    if answer is None:
        yield Finding(
            "card", "warning", "no nvidia-smi: runs compute on the processor, with the embedded model at most"
        )
        return
    rows = rows_of(answer.stdout, COLUMNS)
    if answer.returncode or not rows:
        said = (answer.stdout or answer.stderr).strip().splitlines() or ["nothing"]
        yield Finding("driver", "bad", f"nvidia-smi shows no card and says: {said[0]}")
        return
    yield _driver(rows[0][-2])
    for row in rows:
        left_out = _left_out(row, device)
        yield Finding(f"card {row[0]}", "good", f"{row[2]}, left out by {left_out}") if left_out else _card(*row)


def compat_version() -> str:
    """Return the newest driver library that LD_LIBRARY_PATH puts before the system's, empty if none."""
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    names = (file.name for folder in folders for file in Path(folder).glob("libcuda.so.[0-9]*.*"))
    return max((name.removeprefix("libcuda.so.") for name in names), key=_major, default="")


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdigit() else 0


def _driver(version: str) -> Finding:
    compat = compat_version()
    if _major(version) >= LEAST_DRIVER:
        return Finding("driver", "good", version)
    if _major(compat) >= LEAST_DRIVER:
        return Finding("driver", "good", f"{version}, with the library of {compat} before it in LD_LIBRARY_PATH")
    return Finding(
        "driver",
        "bad",
        f"{version}, and CUDA 13 needs {LEAST_DRIVER}; where you rent, filter hosts for CUDA >= 13.0; on a data-centre"
        " card you can instead install cuda-compat-13-0 and put its folder in front of LD_LIBRARY_PATH",
    )


def _left_out(row: list[str], device: str) -> str:
    """Return what keeps a run from the card of a row; empty if nothing does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not any(means(entry.strip(), row) for entry in visible.split(",") if entry.strip()):
        return f"CUDA_VISIBLE_DEVICES={visible}"
    return "" if device in ("auto", card_of(row[2])) else f"device={device}"


def _card(index: str, _: str, name: str, total: str, free: str, mig: str, driver: str, capability: str) -> Finding:
    what = f"card {index}"
    if mig == "Enabled":
        return Finding(what, "bad", f"{name} is {without_mig(index)}")
    if _major(capability) < LEAST_CAPABILITY:
        return Finding(what, "bad", f"{name} has compute capability {capability}; vLLM's LoRA needs 8.0 (Ampere)")
    if not (total.isdigit() and free.isdigit()):
        return Finding(what, "warning", f"{name} says nothing of its memory ({total}): no plan is possible for it")
    text = f"{name}, {int(free) / 1024:.1f} of {int(total) / 1024:.1f} GiB free, compute capability {capability}"
    if int(free) < (1 - HELD) * int(total):
        return Finding(what, "warning", f"{text}; another process holds the rest: nvidia-smi shows which, end it")
    if card_of(name) is None:
        return Finding(
            what, "warning", f"{text}; its rates are not in conf/devices.yaml: time is planned only once it is measured"
        )
    return Finding(what, "good", text)

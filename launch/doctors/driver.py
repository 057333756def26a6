"""NVIDIA's driver and its cards, as nvidia-smi shows them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from launch.doctors.findings import Finding
from launch.hardware.cards import ANSWER_S, card_of

LEAST_DRIVER = 580
"""That CUDA 13 needs, for which vLLM's builds are; launch/setup.sh refuses older ones too."""

LEAST_CAPABILITY = 8
"""In which vLLM serves LoRA in bfloat16: Ampere."""

COLUMNS = ("index", "name", "driver_version", "compute_cap", "memory.total", "memory.free", "mig.mode.current")

HELD = 0.05
"""Share of a card's memory that may be taken before a run: a display, or what the driver keeps."""


def look_at_cards() -> Iterator[Finding]:
    """Yield what there is to say of driver and cards; one finding where there is none."""
    if (tool := shutil.which("nvidia-smi")) is None:
        yield Finding(
            "card", "warning", "no nvidia-smi: runs compute on the processor, with the embedded model at most"
        )
        return
    query = [tool, f"--query-gpu={','.join(COLUMNS)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired):
        yield Finding("driver", "bad", f"nvidia-smi does not answer within {ANSWER_S:g} s; restart the machine")
        return
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
    rows = [row for row in rows if len(row) == len(COLUMNS)]
    if answer.returncode or not rows:
        said = (answer.stdout or answer.stderr).strip().splitlines() or ["nothing"]
        yield Finding("driver", "bad", f"nvidia-smi shows no card and says: {said[0]}")
        return
    yield _driver(rows[0][2])
    for row in rows:
        yield _card(*row)


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


def _card(index: str, name: str, _: str, capability: str, total: str, free: str, mig: str) -> Finding:
    what = f"card {index}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if mig == "Enabled":
        return Finding(
            what,
            "bad",
            f"{name} is divided by MIG, and a run takes whole cards; switch it off (nvidia-smi -i {index} -mig 0), or"
            " leave the card out by CUDA_VISIBLE_DEVICES",
        )
    if _major(capability) < LEAST_CAPABILITY:
        return Finding(what, "bad", f"{name} has compute capability {capability}; vLLM's LoRA needs 8.0 (Ampere)")
    if not (total.isdigit() and free.isdigit()):
        return Finding(what, "warning", f"{name} says nothing of its memory ({total}): no plan is possible for it")
    text = f"{name}, {int(free) / 1024:.1f} of {int(total) / 1024:.1f} GiB free, compute capability {capability}"
    if visible is not None and index not in visible.split(","):
        return Finding(what, "good", f"{text}; hidden by CUDA_VISIBLE_DEVICES={visible}")
    if int(free) < (1 - HELD) * int(total):
        return Finding(what, "warning", f"{text}; another process holds the rest: nvidia-smi shows which, end it")
    if card_of(name) is None:
        return Finding(
            what, "warning", f"{text}; its rates are not in conf/devices.yaml: time is planned only once it is measured"
        )
    return Finding(what, "good", text)

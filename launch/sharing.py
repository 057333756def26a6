"""How engine and learner share a GPU: `tried` says what works here, `weights_choices` and `mps_choice` what a plan may
use of it, `divide` who gets which memory, and `Trial.check` refuses what was asked for and cannot be.

The ways are NVIDIA's MPS, with which two processes compute at the same time, and shared weights, which a third process
holds for both. The plan has their price: memory in `plan.memory`, time in `plan.time`.
"""

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from microbudget_rl.actors.runtime.placement import SHARED_GPU, WHOLE_GPU, Placement, Share
from microbudget_rl.actors.runtime.process import MPS_TOOL, end_with
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, ShapeConfig
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.hardware.gpus import Gpu, seeing
from microbudget_rl.launch.hardware.machine import Machine

CLIENT = f"""
import subprocess
from microbudget_rl.actors.runtime.process import expand_segments
expand_segments()  # as the learner
import torch
ones = torch.ones(64, 64, device="cuda")
assert (ones @ ones == 64).all()
servers = subprocess.run(["{MPS_TOOL}"], input="get_server_list\\n", capture_output=True, text=True).stdout
assert any(map(str.isdigit, servers.split())), "it computed without a server"
"""
"""Program of a client of MPS: it computes on the GPU, and looks for a server of the service, because CUDA computes
without one, and says nothing, if it does not reach the service."""

HOLDER = """
import os, subprocess, sys
from microbudget_rl.actors.runtime.process import ALLOCATOR
for name in ALLOCATOR:
    os.environ.pop(name, None)  # as the holder of a run's weights
import torch
from microbudget_rl.actors.rollout.shared_weights import handles
subprocess.run([sys.executable, "-c", sys.argv[1]], input=handles(torch.nn.Linear(512, 512, device="cuda")), check=True)
"""
READER = """
import pickle, sys
from microbudget_rl.actors.runtime.process import expand_segments
expand_segments()  # as the learner, which maps the weights
assert pickle.load(sys.stdin.buffer)["weight"].any()
"""
"""Programs of two processes: each ends with an error unless the second one reads the memory of the first."""

TRY_S, QUIT_S = 120.0, 20.0
"""Seconds that a program gets, which imports torch and takes a context on the GPU, and that MPS has to end. The first
client of MPS starts its server, which looks at all GPUs."""


LEARNER_SPARE = 0.07
"""GPU memory that a learner gets in addition to its computed need, as a fraction of the need: it covers activations
that take a tenth more."""


@dataclass(frozen=True)
class Trial:
    """What works on a machine.

    machine: the machine with these facts.
    no_mps, no_ipc: why it does not work; empty if it does, or if it was not tried.
    end_mps: ends the service, which otherwise runs as long as the context of `tried`.
    """

    machine: Machine
    no_mps: str
    no_ipc: str
    end_mps: Callable[[], None]

    def check(self, asked: Config, placement: Placement, gpus: Sequence[Gpu], mps: bool) -> None:
        """Raise BadInput if a way of sharing a GPU was asked for and is not possible as placed or by a fault, or if
        engine and learner share a GPU that takes one process; MPS counts as one. mps: whether the plan uses it.
        """
        alone = "engine and learner share no GPU of this machine"
        for key, on, apart, fault in (
            ("run.nvidia_mps", asked.run.mps, placement.device != "cuda" or not placement.shared, self.no_mps),
            ("model.shared_weights", asked.model.shares_weights, not placement.weights, self.no_ipc),
        ):
            if on and (apart or fault):
                raise BadInput(f"{key}=on: {alone if apart else fault}; leave it out")
        for gpu in gpus if placement.shared and not mps else ():
            if gpu.exclusive:
                raise BadInput(
                    f"GPU {gpu.index}, {gpu.name}, has compute mode Exclusive_Process, and engine and learner are two"
                    f" processes: run sudo nvidia-smi -i {gpu.index} -c 0, or give run.nvidia_mps=on"
                )

    def missing(self, placement: Placement) -> dict[str, str]:
        """Return why what would be better does not work, by its name."""
        faults = {"NVIDIA's MPS": self.no_mps if placement.shared else "", "shared weights": self.no_ipc}
        return {name: fault for name, fault in faults.items() if fault}


@contextlib.contextmanager
def tried(config: Config, machine: Machine) -> Iterator[Trial]:
    """Try what a run with these settings may use on this machine, and keep a service of MPS that works running for all
    processes started within the context. A cluster's GPUs are not tried, nor is one that is not here.
    """
    gpus = () if machine.nodes else machine.cards
    no_mps = no_ipc = ""
    with contextlib.ExitStack() as service:
        overlap = config.run.nvidia_mps == "auto" and config.learner.max_staleness > 0
        if gpus and machine.mps and (config.run.mps or overlap):
            if no_mps := service.enter_context(mps_service(gpus)):
                service.close()
        elif not machine.mps and config.run.mps:
            no_mps = f"it needs {MPS_TOOL} on the PATH, and no Ray cluster"
        if len(gpus) == 1 and machine.ipc and config.model.shared_weights != "off":
            no_ipc = ipc_fault(gpus[0])
        facts = replace(machine, mps=machine.mps and not no_mps, ipc=machine.ipc and not no_ipc, tried=True)
        yield Trial(facts, no_mps, no_ipc, service.close)


def weights_choices(config: Config, machine: Machine, shape: ShapeConfig) -> list[str]:
    """Return the values of model.shared_weights that a plan may choose from."""
    plain = shape.sizes.keys() <= {"sliding_window"}  # others have modules that sharing does not know
    if machine.gpus != 1 or machine.nodes or not plain:
        return ["off"]
    if config.model.shared_weights == "auto":
        return ["off", "on"] if machine.ipc else ["off"]
    return [config.model.shared_weights]


def mps_choice(config: Config, machine: Machine, placement: Placement) -> str:
    """Return the value of run.nvidia_mps: by default it is on where engine and learner compute at the same time."""
    if config.run.nvidia_mps != "auto":
        return config.run.nvidia_mps
    return "on" if machine.mps and config.learner.max_staleness > 0 and placement.shared else "off"


def divide(
    placement: Placement,
    engine: float,
    learner: float,
    room: float = SHARED_GPU,
    weights: float = 0.0,
    alone: float = WHOLE_GPU,
) -> Placement:
    """Return the placement with shared GPUs divided by needs, all fractions of its memory, without contexts. room:
    the fraction to divide. weights: the need of the process that holds the base model, if there is one. alone: the
    most of a GPU that is not shared.

    This process gets its need, and the learner its need and LEARNER_SPARE, in whole hundredths. The engine, whose KV
    cache can have any size, gets the rest, and at least its need.
    """
    room = math.floor(100 * min(room, SHARED_GPU)) / 100
    portion = min(math.ceil(100 * weights), round(100 * room) - 2) / 100
    room -= portion
    hundredths = min(math.ceil(100 * (1 + LEARNER_SPARE) * learner), math.floor(100 * (room - engine)))
    of_learner = max(hundredths, 1) / 100

    def shares(of: tuple[Share, ...], fraction: float) -> tuple[Share, ...]:
        whole = (replace(share, memory=min(share.memory, alone)) for share in of)
        return tuple(replace(share, gpus=fraction, memory=fraction) if share.gpus % 1 else share for share in whole)

    rollouts = shares(placement.rollouts, max(round(room - of_learner, 2), 0.01))
    holder = Share(gpus=portion, memory=portion) if weights else None
    return replace(placement, rollouts=rollouts, learners=shares(placement.learners, of_learner), weights=holder)


@contextlib.contextmanager
def mps_service(gpus: Sequence[Gpu]) -> Iterator[str]:
    """Run a service of MPS for all processes started within the context, and yield why no client can compute on the GPU
    with the most free memory; empty if one can. gpus: those that this process may use.

    The service sees all GPUs in the order of PCI buses; otherwise it would renumber its clients' GPUs. It ends with
    this process, even after kill -9.
    """
    with scratch_folder("mps-") as folder:
        places = {f"CUDA_MPS_{name}_DIRECTORY": str(folder) for name in ("PIPE", "LOG")}
        os.environ |= places
        environment = os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        nothing, end = subprocess.DEVNULL, partial(end_with, os.getpid())
        service = subprocess.Popen(
            [MPS_TOOL, "-f"], env=environment, stdin=nothing, stdout=nothing, stderr=nothing, preexec_fn=end
        )
        try:
            fault = _fault("a client of NVIDIA's MPS", CLIENT, gpu=max(gpus, key=lambda gpu: gpu.free or 0))
            if fault and (log := folder / "control.log").is_file():
                fault += f"; the service says: {''.join(log.read_text(errors='replace').splitlines()[-1:])}"
            yield fault
        finally:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([MPS_TOOL], input="quit\n", text=True, capture_output=True, timeout=QUIT_S)
                service.wait(QUIT_S)
            service.kill()
            service.wait()
            for name in places:
                os.environ.pop(name)


def ipc_fault(gpu: Gpu) -> str:
    """Return why a process cannot map another's memory on a GPU, as in some containers; empty if it can."""
    return _fault("mapping GPU memory of another process", HOLDER, READER, gpu=gpu)


def _fault(what: str, *program: str, gpu: Gpu) -> str:
    """Run a program of Python, with arguments, that sees a GPU. Return why it failed; empty if it did not."""
    command, environment = [sys.executable, "-c", *program], os.environ | seeing(gpu)
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=TRY_S)
    except subprocess.TimeoutExpired:
        return f"{what} took more than {TRY_S:g} s"
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "Error" in line] or [str(error)]
        return f"{what} failed: {said[0]}"
    return ""

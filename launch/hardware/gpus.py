"""The NVIDIA GPUs of this machine, found with the driver's library NVML, and those that a run uses."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from microbudget_rl.actors.clock import in_thread
from microbudget_rl.conf.catalogue import devices
from microbudget_rl.conf.errors import BadInput

ANSWER_S = 20.0
"""Seconds that the driver has to answer: it wakes sleeping GPUs one after another."""

CORE_FLOPS = {(8, 0): 32, (9, 0): 32, (10, 0): 64, (10, 3): 64}
OTHER_CORE_FLOPS = 8
"""Dense operations in bfloat16 of the tensor cores per CUDA core and clock: of data-centre GPUs by compute capability,
and of others since Ampere. From NVIDIA's whitepapers, as the rates in devices.yaml."""

GEFORCE = 0.4
"""Fraction of these that a GeForce reaches: half with sums in fp32, at four fifths of the highest clock, its boost."""

NO_MIG = "a run uses whole GPUs, and vLLM 0.32 mistakes the number of a MIG device for that of a GPU"


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    index: position in the driver's order, which is that of PCI buses
    memory: bytes that CUDA counts as its total: all but the driver's; 0 for a GPU without memory of its own
    free: bytes that no process holds, None if the driver does not say
    capability: compute capability, major and minor
    rates: bytes/s of its memory and FLOP/s in bfloat16, by its clocks; None if the driver does not say
    divided: whether MIG divides it
    exclusive, prohibited: whether its compute mode lets one process at a time use it, or none
    """

    index: str
    name: str
    memory: int
    free: int | None
    uuid: str = ""
    capability: tuple[int, int] = (0, 0)
    rates: tuple[float, float] | None = None
    divided: bool = False
    exclusive: bool = False
    prohibited: bool = False

    @property
    def free_fraction(self) -> float:
        """Fraction of the memory that no process holds; 1 if the driver does not say."""
        return 1.0 if self.free is None else self.free / self.memory


def find_gpus(device: str = "auto") -> list[Gpu]:
    """Return the GPUs this process may use: all (`auto`), or those with a name of devices.yaml; none without a driver.
    Raises BadInput if the driver hangs and `device` names no GPU, and for the faults of `select`.
    """
    from pynvml import NVMLError

    try:
        _, gpus = ask_driver()
    except TimeoutError as error:
        if device != "auto":
            return []
        raise BadInput(
            f"NVIDIA's driver does not answer within {ANSWER_S:g} s: restart it, or give device=cpu"
        ) from error
    except NVMLError:
        return []
    return select(gpus, device)


def ask_driver() -> tuple[str, list[Gpu]]:
    """Return the version of the driver and all its GPUs.

    Raises TimeoutError if the driver does not answer, NVMLError_LibraryNotFound without one, and NVMLError if it fails.
    """
    import pynvml

    def ask() -> tuple[str, list[Gpu]]:
        pynvml.nvmlInit()
        try:
            gpus = map(_gpu, range(pynvml.nvmlDeviceGetCount()))
            return pynvml.nvmlSystemGetDriverVersion(), [gpu for gpu in gpus if gpu]
        finally:
            pynvml.nvmlShutdown()

    return in_thread(ANSWER_S, ask)


def _gpu(number: int) -> Gpu | None:
    """Return a GPU; None if it is lost, or if this process may not use it."""
    import pynvml

    def said(ask: Callable[..., Any]) -> Any:
        try:
            return ask(handle)
        except pynvml.NVMLError_NotSupported:
            return None

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    except (pynvml.NVMLError_NoPermission, pynvml.NVMLError_GpuIsLost):
        return None
    memory = said(partial(pynvml.nvmlDeviceGetMemoryInfo, version=pynvml.nvmlMemory_v2))
    name, capability = pynvml.nvmlDeviceGetName(handle), said(pynvml.nvmlDeviceGetCudaComputeCapability) or (0, 0)
    mig, mode = said(pynvml.nvmlDeviceGetMigMode), said(pynvml.nvmlDeviceGetComputeMode)
    return Gpu(
        index=str(number),
        name=name,
        memory=memory.total - memory.reserved if memory else 0,
        free=memory.free if memory else None,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        capability=capability,
        rates=_rates(handle, name, capability),
        divided=mig is not None and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        exclusive=mode == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
        prohibited=mode == pynvml.NVML_COMPUTEMODE_PROHIBITED,
    )


def _rates(handle: Any, name: str, capability: tuple[int, int]) -> tuple[float, float] | None:
    """Return bytes/s and FLOP/s of a GPU; None if its driver does not know all, as that of a virtual GPU."""
    import pynvml

    try:
        clocks = (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
        core_hz, memory_hz = (1e6 * pynvml.nvmlDeviceGetMaxClockInfo(handle, clock) for clock in clocks)
        cores, bits = pynvml.nvmlDeviceGetNumGpuCores(handle), pynvml.nvmlDeviceGetMemoryBusWidth(handle)
    except pynvml.NVMLError:
        return None
    if not all((core_hz, memory_hz, cores, bits, any(capability))):
        return None
    each = CORE_FLOPS.get(capability, OTHER_CORE_FLOPS) * (GEFORCE if "GEFORCE" in name.upper() else 1.0)
    return 2 * memory_hz * bits / 8, cores * core_hz * each * (capability >= (8, 0))


def select(gpus: Sequence[Gpu], device: str = "auto") -> list[Gpu]:
    """Return the GPUs that have a device's name and are in CUDA_VISIBLE_DEVICES, in its order.

    Raises BadInput for a GPU that MIG divides, in compute mode Prohibited, or whose memory the driver does not report.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        wanted = [entry.strip() for entry in visible.split(",") if entry.strip()]
        if gpus and (divided := [entry for entry in wanted if entry.startswith("MIG-")]):
            raise BadInput(f"CUDA_VISIBLE_DEVICES={divided[0]}: {NO_MIG}; name a GPU that is not divided")
        gpus = [gpu for entry in wanted for gpu in gpus if entry == gpu.index or gpu.uuid.startswith(entry)]
    chosen = [gpu for gpu in gpus if device in ("auto", gpu_of(gpu.name))]
    for gpu in chosen:
        fault = ""
        if gpu.divided:
            fault = f"is divided by MIG: {NO_MIG}; switch it off (nvidia-smi -i {gpu.index} -mig 0), or"
        elif gpu.prohibited:
            fault = f"has compute mode Prohibited: run sudo nvidia-smi -i {gpu.index} -c 0, or"
        elif not gpu.memory:
            fault = "has no memory of its own, which a plan needs: give device=cpu, or"
        if fault:
            raise BadInput(f"GPU {gpu.index}, {gpu.name}, {fault} hide it by CUDA_VISIBLE_DEVICES")
    return chosen


def gpu_of(name: str) -> str | None:
    """Return the devices.yaml name of a GPU that the driver calls, say, `NVIDIA A100-SXM4-80GB`; None for a variant."""
    words = name.upper().replace("-", " ").split()
    joined = "".join(words)
    if "A100" in words:
        return "A100-80" if "80GB" in joined else "A100-40"
    if "LAPTOP" in words:
        return None
    exact = [each for each in devices() if set(each.upper().split("-")).issubset(words)]
    rtx = [each for each in devices() if re.search(rf"{each.upper()}(?!TI|SUPER|D\b)", joined) and "RTX" in each]
    return max(exact or rtx, key=len, default=None)


def emptiest(gpus: Sequence[Gpu], number: int) -> list[Gpu]:
    """Return so many GPUs with the largest fractions of free memory, in their order."""
    chosen = sorted(gpus, key=lambda gpu: -gpu.free_fraction)[:number]
    return [gpu for gpu in gpus if gpu in chosen]


def seeing(*gpus: Gpu) -> dict[str, str]:
    """Return the variables by which a process sees only these GPUs, in this order."""
    return {  # CUDA's own order is fastest first
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(gpu.index for gpu in gpus),
    }


def show_only(gpus: Sequence[Gpu]) -> None:
    """Let child processes see only these GPUs, in this order. Without GPUs, hide nothing."""
    if gpus:
        os.environ.update(seeing(*gpus))

"""GPUs that are not here: the driver's library, and the answers of torch and NVML about a GPU of devices.yaml."""

import json
import subprocess
from collections.abc import Callable
from types import SimpleNamespace

from microbudget_rl.conf.catalogue import devices

REFUSED = (
    *("CtxGetCurrent", "CtxSetCurrent", "DeviceGetAttribute", "DevicePrimaryCtxRetain", "GetErrorString", "Init"),
    *("GetProcAddress", "GetProcAddress_v2", "MemAddressFree", "MemAddressReserve", "MemCreate", "MemMap", "MemUnmap"),
    *("MemGetAllocationGranularity", "MemRelease", "MemSetAccess", "PointerGetAttribute", "TensorMapEncodeTiled"),
)
"""Functions of the driver's library to which torch and vLLM are linked. Their answer is that there is no device."""

CARDS = {
    "RTX3060Ti": (86, 119),
    "RTX3060": (86, 120),
    "RTX4060Ti": (89, 107),
    "RTX4090": (89, 112),
    "RTX5090": (120, 103),
    "A40": (86, 103),
    "A100-80": (80, 102),
    "H100": (90, 102),
}
"""GPUs of devices.yaml from 8 to 80 GB, with their compute capability, 86 for 8.6, and the number of their cases."""


def driver(folder: str) -> str:
    """Compile the library into a folder, and return its path for LD_PRELOAD."""
    path, code = f"{folder}/libcuda.so.1", "".join(f"int cu{name}(void) {{ return 100; }}\n" for name in REFUSED)
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-o", path, "-"]
    subprocess.run(command, input=code, text=True, check=True)
    return path


def pretend(name: str) -> None:
    """Let torch and NVML name this GPU in this process, before vLLM looks for one."""
    import torch
    from vllm.utils.import_utils import import_pynvml

    memory = int(devices()[name].memory_gib * 2**30)
    major, minor = divmod(CARDS[name][0], 10)
    size = {"total_memory": memory, "multi_processor_count": 84, "warp_size": 32}
    properties = SimpleNamespace(name=name, major=major, minor=minor, **size)
    of_nvml = {"Init": None, "Shutdown": None, "DeviceGetCount": 1, "DeviceGetHandleByIndex": 0, "DeviceGetUUID": name}
    of_nvml |= {"DeviceGetCudaComputeCapability": (major, minor), "DeviceGetName": name}
    of_nvml |= {"DeviceGetMemoryInfo": SimpleNamespace(total=memory, free=memory, used=0)}
    of_torch = {"get_device_name": name, "get_device_properties": properties, "get_device_capability": (major, minor)}
    of_torch |= {"device_count": 1, "is_available": True}
    of_accelerator = {"device_count": 1, "current_device_index": 0}
    answers = ((import_pynvml(), "nvml", of_nvml), (torch.cuda, "", of_torch), (torch.accelerator, "", of_accelerator))
    for target, prefix, known in answers:
        for function, answer in known.items():
            setattr(target, prefix + function, lambda *_, answer=answer, **__: answer)


def attempt(check: str, name: str, ask: Callable[[], object]) -> None:
    """Print as JSON the error that a function raises, which is nothing or any error of a library."""
    fault = ""
    try:
        ask()
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    print(json.dumps({"check": check, "name": name, "fault": fault}), flush=True)

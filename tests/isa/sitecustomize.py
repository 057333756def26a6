"""Hides instructions of the CPU from every Python process that has this folder on its PYTHONPATH.

`TEST_ISA=avx2` or `avx512` names the remaining ones; `avx512` is without bfloat16. torch and vLLM ask cpuinfo inside
libc10.so. oneDNN and MKL ask the CPU, up to a limit in a variable of their own. `launch/` reads /proc/cpuinfo.
DeepSpeed's Adam keeps all instructions: it is compiled for this machine.
"""

import ctypes
import importlib.util
import os
import re
from pathlib import Path

NEWEST = "avx10|amx|avx_ne|avx_vnni_int"
HIDDEN = {"avx2": f"avx512|{NEWEST}", "avx512": f"avx512_(bf16|fp16|vp2|4)|{NEWEST}"}
"""Patterns of hidden instructions' names in /proc/cpuinfo and in `torch.cpu.get_capabilities()`."""

FLAGS = {"avx2": range(29, 56), "avx512": range(42, 56)}
"""Their numbers in cpuinfo's `struct cpuinfo_x86_isa` of torch 2.13."""

LIMITS = {
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
}


def hide(isa: str) -> None:
    os.environ.update(LIMITS[isa])
    torch = importlib.util.find_spec("torch")
    if torch and torch.origin:
        cpuinfo = ctypes.CDLL(str(Path(torch.origin).with_name("lib") / "libc10.so"))
        cpuinfo.cpuinfo_initialize()
        flags = (ctypes.c_bool * FLAGS[isa].stop).in_dll(cpuinfo, "cpuinfo_isa")
        for number in FLAGS[isa]:
            flags[number] = False

    read_text = Path.read_text

    def read(path: Path, *given: str | None, **named: str | None) -> str:
        text = read_text(path, *given, **named)
        return re.sub(rf"\b({HIDDEN[isa]})\w*", "", text) if str(path) == "/proc/cpuinfo" else text

    Path.read_text = read  # type: ignore[method-assign]


if isa := os.environ.get("TEST_ISA"):
    hide(isa)

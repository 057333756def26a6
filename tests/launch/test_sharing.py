"""NVIDIA's MPS by a stand-in in bash; and two processes share memory: that of the CPU stands in for a GPU's."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.runtime import process
from microbudget_rl.actors.runtime.placement import SHARED_GPU, Placement, Share, place
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch import sharing
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.sharing import Trial, divide, ipc_fault, mps_service
from tests.launch.plan.plans import CPU, machine, plan, shown

SERVICE = """#!/bin/bash
if [ "$1" = -f ]; then
    env > "$HOME/started"
    echo "no permission" > "$CUDA_MPS_LOG_DIRECTORY/control.log"
    echo $$ > "$HOME/pid"
    exec sleep 60
fi
read -r word
[ "$word" = get_server_list ] && echo 4711 || echo "$word" >> "$HOME/told"
[ "$word" != quit ] || kill "$(cat "$HOME/pid")"
"""

ONCE_STARTED = """
import os, time
while not os.path.exists(os.environ["HOME"] + "/pid"):
    time.sleep(0.01)
"""
"""Beginning of a client that waits for the stand-in."""

A40 = replace(machine("A40"), mps=True)
GPUS = [Gpu("2", "NVIDIA A40", 45, 3), Gpu("3", "NVIDIA A40", 45, 40)]
BY_NAME = "import torch.multiprocessing as m; m.set_sharing_strategy('file_system')"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Puts the stand-in into place of the service. Returns what it was told."""
    tool = tmp_path / "tool"
    tool.write_text(SERVICE)
    tool.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    for module in (process, sharing):
        monkeypatch.setattr(module, "MPS_TOOL", str(tool))
    return lambda: (tmp_path / "told").read_text().splitlines() if (tmp_path / "told").exists() else []


@pytest.mark.long
@pytest.mark.parametrize(
    ("client", "said"),
    [
        ("assert os.environ['CUDA_VISIBLE_DEVICES'] == '3'", ""),  # the one with room
        ("raise RuntimeError('CUDA: X')", "RuntimeError: CUDA: X; .*no permission"),
    ],
)
def test_the_service_counts_gpus_as_the_driver_does_and_a_client_says_whether_it_works(
    client: str, said: str, told: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(sharing, "CLIENT", ONCE_STARTED + client)
    with mps_service(GPUS) as fault:
        assert bool(fault) == bool(said)
        folder = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert folder.stat().st_mode & 0o777 == 0o700
    assert re.search(said, fault)
    started = (tmp_path / "started").read_text()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in started
    assert "\nCUDA_VISIBLE_DEVICES=" not in started  # else it would number its clients' GPUs from 0
    assert told() == ["quit"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not folder.exists()


def test_an_actor_that_is_killed_leaves_the_service_first(
    told: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    killed = list[list[str]]()
    monkeypatch.setattr("ray.kill", lambda _: killed.append(told()))
    monkeypatch.setattr("asyncio.current_task", lambda: None)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    watched = SimpleNamespace(killed="", watcher=SimpleNamespace(pid=815), handle=None)
    actor: Any = SimpleNamespace(_process=watched, _heartbeat=None, _share=Share(gpus=0.5))
    RemoteActor.kill(actor)
    assert killed == [["terminate_client 4711 815"]]


@pytest.mark.parametrize(
    ("where", "settings", "value"),
    [
        (A40, [], "on"),
        (machine("A40"), [], "off"),
        (A40, ["learner.max_staleness=0"], "off"),
        (replace(machine("A40", 2), mps=True), ["rollout.actors=1", "learner.world_size=1"], "off"),
        (CPU, ["model.dtype=float32", "device=cpu"], "off"),
    ],
)
def test_mps_is_on_where_engine_and_learner_share_a_gpu_and_it_works(where: Machine, settings: list[str], value: str):
    made = plan("r8_instruct", where, *settings)
    assert made.config.run.nvidia_mps == value
    assert ("if it works there" in shown(made)) == (value == "on")
    assert "if it works there" not in shown(plan("r8_instruct", replace(where, tried=True), *settings))


@pytest.mark.long
def test_memory_that_can_be_mapped_has_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # the user's, which no container lets map
    unset = "assert 'PYTORCH_ALLOC_CONF' not in os.environ"
    monkeypatch.setattr(sharing, "HOLDER", BY_NAME + sharing.HOLDER.replace('"cuda"', '"cpu"') + unset)
    assert ipc_fault(GPUS[0]) == ""
    monkeypatch.setattr(sharing, "READER", "raise PermissionError('pidfd_getfd')")
    assert "pidfd_getfd" in ipc_fault(GPUS[0])


@given(st.floats(0.01, 1.5), st.floats(0.01, 1.5), st.just(0.0) | st.floats(0.01, 1.5))
def test_a_shared_gpu_is_divided_by_needs(engine: float, learner: float, weights: float):
    placement = divide(place(tuple(range(16)), 1), engine, learner, weights=weights)
    of_engine, of_learner = (shares[0].memory for shares in (placement.rollouts, placement.learners))
    held = placement.weights.memory if placement.weights else 0.0
    assert of_engine + of_learner + held == pytest.approx(SHARED_GPU)
    assert of_engine > 0 < of_learner
    assert (placement.gpus, bool(held)) == (1, bool(weights))
    if weights <= SHARED_GPU - 0.03:
        assert weights <= held + 1e-9 < weights + 0.01 + 2e-9
        engine += held
    if weights <= SHARED_GPU - 0.03 and engine + learner <= SHARED_GPU - 0.01:  # a hundredth is lost in rounding
        of_engine += held
        assert of_engine >= engine - 1e-9
        assert of_learner >= learner - 1e-9
    if weights <= SHARED_GPU - 0.03 and engine + 1.07 * learner <= SHARED_GPU - 0.01:
        assert 1.07 * learner <= of_learner + 1e-9 < 1.07 * learner + 0.01 + 2e-9


def test_a_gpu_of_its_own_is_not_divided():
    for placement in (place(tuple(range(16)), 2), place((0, 1, 2), 0, 1)):
        assert divide(placement, 0.2, 0.2) == placement


SHARED = divide(place(tuple(range(8)), 1), 0.3, 0.3, weights=0.2)


@pytest.mark.parametrize("key", ["run.nvidia_mps", "model.shared_weights"])
@pytest.mark.parametrize(
    ("placement", "fault", "said"),
    [
        (SHARED, "", ""),
        (SHARED, "pidfd_getfd", "pidfd_getfd"),
        (place(tuple(range(8)), 2), "", "share no GPU"),
        (place((0, 1), 0), "", "share no GPU"),
    ],
)
def test_sharing_that_is_asked_for_and_cannot_be_is_refused(key: str, placement: Placement, fault: str, said: str):
    trial = Trial(A40, fault, fault, lambda: None)
    trial.check(load(["conf=r8_instruct"]), placement, (), True)
    asked = load(["conf=r8_instruct", f"{key}=on"])
    if not said:
        trial.check(asked, placement, (), True)
        return
    with pytest.raises(BadInput, match=f"^{key}=on: .*{said}"):
        trial.check(asked, placement, (), True)

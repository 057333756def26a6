"""NVIDIA's Multi-Process Service, by a stand-in in bash."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from actors.runtime.placement import Node, place
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from launch.hardware import mps
from launch.hardware.machine import Machine
from launch.hardware.mps import PRICE, check_mps, mps_service
from launch.plan.options import options
from tests.launch.plan.plans import CPU, machine, plan, shown

SERVICE = """#!/bin/bash
if [ "$1" = -f ]; then
    echo $$ > "$CUDA_MPS_PIPE_DIRECTORY/pid"
    env > "$CUDA_MPS_PIPE_DIRECTORY/started"
    exec sleep 60
fi
read -r word
[ -e "$CUDA_MPS_PIPE_DIRECTORY/pid" ] || exit 1
echo "$word" >> "$CUDA_MPS_PIPE_DIRECTORY/told"
kill "$(cat "$CUDA_MPS_PIPE_DIRECTORY/pid")"
"""

BROKEN = """#!/bin/bash
[ -z "$CUDA_MPS_PIPE_DIRECTORY" ] && touch "${0%/*}/told"
[ "$1" = -f ] || exit 0
echo "no permission" > "$CUDA_MPS_LOG_DIRECTORY/control.log"
exit 1
"""


@pytest.fixture
def tool(tmp_path: Path, no_mps: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(mps, "CLIENT", "")
    monkeypatch.setattr(mps, "TOOL", "nvidia-cuda-mps-control")

    def install(script: str) -> None:
        file = folder / "nvidia-cuda-mps-control"
        file.write_text(script)
        file.chmod(0o755)

    return install


@pytest.fixture
def config() -> Config:
    return load(["conf=r8_instruct", "run.nvidia_mps=on"])


def test_it_runs_meanwhile_and_counts_gpus_as_the_driver_does(tool: Callable[[str], None], config: Config) -> None:
    tool(SERVICE)
    with mps_service(load(["conf=r8_instruct"]), "auto") as (settled, event):  # no plan has decided
        assert (settled.run.mps, event) == (False, "")
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    with mps_service(config, "on") as (settled, event):
        assert (settled, event) == (config, PRICE)
        pipe = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        started = (pipe / "started").read_text()
        assert pipe.parent.name == "mps-3"
        assert oct(pipe.stat().st_mode & 0o777) == "0o700"
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in started
    assert "CUDA_VISIBLE_DEVICES" not in started  # else it would number its clients' GPUs from 0
    assert (pipe / "told").read_text() == "quit\n"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_a_service_that_does_not_start_is_refused_or_under_auto_left_out(
    tool: Callable[[str], None], config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool(BROKEN)
    with pytest.raises(BadInput, match=r"run\.nvidia_mps.*no permission"), mps_service(config, "on"):
        pass
    with mps_service(config, "auto") as (settled, event):
        assert settled.run.nvidia_mps == "off"
        assert "no permission" in event
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not list(tmp_path.rglob("told"))  # another user's service is left alone
    (said,) = capsys.readouterr().out.splitlines()
    assert "no permission" in said


@pytest.mark.parametrize(
    ("client", "said"),
    [("raise RuntimeError('CUDA: X')", "RuntimeError: CUDA: X"), ("import time; time.sleep(60)", "0.5 s")],
)
def test_a_service_whose_clients_fail_is_left_out(
    client: str,
    said: str,
    tool: Callable[[str], None],
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool(SERVICE)
    monkeypatch.setattr(mps, "CLIENT", client)
    monkeypatch.setattr(mps, "CLIENT_S", 0.5)
    with pytest.raises(BadInput, match=said), mps_service(config, "on"):
        pass
    with mps_service(config, "auto") as (settled, event):
        assert not settled.run.mps
        assert said in event
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_client_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    exec(mps.CLIENT.replace("cuda", "cpu"), {})
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setattr("torch.Tensor.__matmul__", lambda ones, _: ones)
    with pytest.raises(AssertionError):
        exec(mps.CLIENT.replace("cuda", "cpu"), {})


@pytest.mark.parametrize(
    ("where", "settings", "value"),
    [
        (machine("A40"), [], "on"),
        (replace(machine("A40"), present=False), [], "on"),
        (machine("A40"), ["learner.max_staleness=0"], "off"),
        (machine("A40"), ["run.nvidia_mps=off"], "off"),
        (machine("A40", 2), ["rollout.actors=1", "learner.world_size=1"], "off"),
        (replace(machine("A40"), nodes=(Node("a", (0, 1), 1),)), [], "off"),
        (CPU, ["model.dtype=float32", "device=cpu"], "off"),
    ],
)
def test_auto_is_on_where_engine_and_learner_share_a_gpu(
    where: Machine, settings: list[str], value: str, tool: Callable[[str], None]
) -> None:
    tool(SERVICE)
    made = plan("r8_instruct", where, *settings)
    assert made.config.run.nvidia_mps == value
    assert ("if it works there" in shown(made)) == (value == "on")


def test_auto_is_off_without_the_tool_and_on_for_a_gpu_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.hardware.mps.shutil.which", lambda _: None)
    here, elsewhere = machine("A40"), replace(machine("A40"), present=False)
    assert (plan("r8_instruct", here).config.run.mps, plan("r8_instruct", elsewhere).config.run.mps) == (False, True)
    assert "run.nvidia_mps=off" in options(plan("r8_instruct", elsewhere))


def test_it_is_refused_where_it_cannot_be(tool: Callable[[str], None], config: Config) -> None:
    shared, cpu, two = place((0, 1), 1), place((0, 1), 0), place(tuple(range(8)), 2)
    for placement, joined, beside, said in (
        (cpu, False, 1, "share no GPU"),
        (two, False, 1, "share no GPU"),
        (shared, True, 1, "cluster"),
        (shared, False, 2, "CUDA_VISIBLE_DEVICES"),
        (shared, False, 1, "nvidia-cuda-mps-control"),
    ):
        with pytest.raises(BadInput, match=said):
            check_mps(config, placement, joined, beside)
    tool(SERVICE)
    check_mps(config, shared, joined=False)
    check_mps(load(["conf=r8_instruct", "run.nvidia_mps=off"]), cpu, joined=True)

"""NVIDIA's Multi-Process Service, by a stand-in in bash."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.runtime.placement import Share, place
from actors.runtime.remote_actor import RemoteActor
from conf.errors import BadInput
from conf.load import load
from launch.hardware import mps
from launch.hardware.gpus import Gpu
from launch.hardware.machine import Machine
from launch.hardware.mps import check_mps, running
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
def short() -> Iterator[str]:
    """A folder for temporary files with a path that leaves room for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


@pytest.fixture
def tool(tmp_path: Path, short: str, no_mps: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", short)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(mps, "CLIENT", "")
    monkeypatch.setattr(mps, "TOOL", "nvidia-cuda-mps-control")

    def install(script: str) -> None:
        file = folder / "nvidia-cuda-mps-control"
        file.write_text(script)
        file.chmod(0o755)

    return install


GPUS = [Gpu("2", "NVIDIA A40", 45, 3), Gpu("3", "NVIDIA A40", 45, 40)]


def test_it_runs_meanwhile_for_one_run_and_counts_gpus_as_the_driver_does(tool: Callable[[str], None]) -> None:
    tool(SERVICE)
    with running(GPUS) as fault:
        assert not fault
        pipe = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        started = (pipe / "started").read_text()
        assert pipe.parent.name == "mps-2,3"
        assert oct(pipe.stat().st_mode & 0o777) == "0o700"
        with running(GPUS) as second:
            assert "another run" in second
        assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == str(pipe)
        assert not (pipe / "told").exists()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in started
    assert "CUDA_VISIBLE_DEVICES" not in started  # else it would number its clients' GPUs from 0
    assert (pipe / "told").read_text() == "quit\n"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    with running(GPUS) as third:
        assert not third


def test_its_socket_has_a_path_that_linux_allows(
    tool: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(SERVICE)
    (tmp_path / ("x" * 60)).mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 60)))
    with running([Gpu(str(os.getpid()), "NVIDIA A40", 45, 40)]) as fault:
        folder = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"]).parent
        assert not fault
        assert len(f"{folder}/pipe/control_privileged") <= 107
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("script", "client", "said"),
    [
        (BROKEN, "", "no permission"),
        (SERVICE, "raise RuntimeError('CUDA: X')", "RuntimeError: CUDA: X"),
        (SERVICE, "import time; time.sleep(60)", "0.5 s"),
        (SERVICE, "import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == '3'", ""),  # the one with room
    ],
)
def test_a_service_that_does_not_start_or_whose_clients_fail_says_why(
    script: str, client: str, said: str, tool: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(script)
    monkeypatch.setattr(mps, "CLIENT", client)
    monkeypatch.setattr(mps, "CLIENT_S", 0.5 if "sleep" in client else 60.0)
    with running(GPUS) as fault:
        assert said in fault
        assert bool(fault) == bool(said)
    assert not list(tmp_path.glob("tools/told"))  # another user's service is left alone


def test_an_actor_that_is_killed_leaves_the_service_first(
    tool: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tmp_path / "done"
    tool(f'#!/bin/bash\nread -r line\n[ "$line" = get_server_list ] && echo 4711 || echo "$line" >> {done}\n')
    monkeypatch.setattr("ray.kill", lambda _: done.write_text(done.read_text() + "killed"))
    monkeypatch.setattr("asyncio.current_task", lambda: None)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    process = SimpleNamespace(killed="", watcher=SimpleNamespace(pid=815), handle=None)
    actor: Any = SimpleNamespace(_process=process, _heartbeat=None, _share=Share(gpus=0.5))
    RemoteActor.kill(actor)
    assert done.read_text().splitlines() == ["terminate_client 4711 815", "killed"]


@pytest.mark.parametrize(
    ("where", "settings", "value"),
    [
        (replace(machine("A40"), mps=True), [], "on"),
        (machine("A40"), [], "off"),
        (replace(machine("A40"), mps=True), ["learner.max_staleness=0"], "off"),
        (replace(machine("A40", 2), mps=True), ["rollout.actors=1", "learner.world_size=1"], "off"),
        (CPU, ["model.dtype=float32", "device=cpu"], "off"),
    ],
)
def test_auto_is_on_where_engine_and_learner_share_a_gpu_and_it_works(
    where: Machine, settings: list[str], value: str
) -> None:
    made = plan("r8_instruct", where, *settings)
    assert made.config.run.nvidia_mps == value
    assert ("if it works there" in shown(made)) == (value == "on")
    assert "if it works there" not in shown(plan("r8_instruct", replace(where, tried=True), *settings))


def test_it_is_refused_where_it_cannot_be(tool: Callable[[str], None]) -> None:
    config = load(["conf=r8_instruct", "run.nvidia_mps=on"])
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
    with pytest.raises(BadInput, match="no client"):
        check_mps(config, shared, joined=False, fault="no client")
    check_mps(load(["conf=r8_instruct", "run.nvidia_mps=off"]), cpu, joined=True)

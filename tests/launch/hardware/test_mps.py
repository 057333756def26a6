"""NVIDIA's Multi-Process Service, by a stand-in in bash."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.runtime.placement import place
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from launch.hardware.mps import check_mps, mps_service

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
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

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
    with mps_service(load(["conf=r8_instruct"]), "off"):
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    with mps_service(config, "on"):
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
    with mps_service(config, "auto") as settled:
        assert settled.run.nvidia_mps == "off"
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not list(tmp_path.rglob("told"))  # another user's service is left alone
    (said,) = capsys.readouterr().out.splitlines()
    assert "no permission" in said


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
    check_mps(load(["conf=r8_instruct"]), cpu, joined=True)

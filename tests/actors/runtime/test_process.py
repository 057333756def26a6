"""What an event loop waits for when it ends a process."""

import subprocess
from typing import Any

import pytest

from microbudget_rl.actors.runtime.process import leave_mps
from microbudget_rl.actors.runtime.remote_actor import HEARTBEAT_S


@pytest.mark.parametrize("answers", [0, 1])
def test_a_silent_service_of_mps_holds_up_no_heartbeat(monkeypatch: pytest.MonkeyPatch, answers: int):
    waits = list[float]()

    def run(command: list[str], *, timeout: float, **_: Any) -> subprocess.CompletedProcess[str]:
        waits.append(timeout)
        if len(waits) > answers:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0, "4711\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/pipe")
    leave_mps(815)
    assert len(waits) == answers + 1
    assert sum(waits) < HEARTBEAT_S

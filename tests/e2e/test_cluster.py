"""A whole run on a Ray cluster that was there before it: two nodes of this machine, each with a core of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microbudget_rl.launch.hardware.machine import detect
from tests.faults.conftest import Run, begin

__all__ = ["begin"]


class Host:
    """A cluster in a process of its own."""

    def __init__(self, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.cluster_host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_AUTH_MODE": mode},
        )
        self.address = self._read()

    def ask(self, question: str) -> tuple[int, float]:
        """`free` or `hold`; nodes alive and cores free after that."""
        assert self._process.stdin
        print(question, file=self._process.stdin, flush=True)
        alive, free = json.loads(self._read())
        return alive, free

    def end(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture(params=["token"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A cluster that was started with this RAY_AUTH_MODE."""
    if detect().gpus or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("for a machine with two cores and no card")
    if not Path("~/.ray/auth_token").expanduser().exists():
        subprocess.run([Path(sys.executable).with_name("ray"), "get-auth-token", "--generate"], check=True)
    host = Host(request.param)
    monkeypatch.setenv("RAY_ADDRESS", host.address)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    yield host
    host.end()


@pytest.mark.slow
def test_run_joins_a_cluster_and_leaves_it_as_it_was(host: Host, begin: Callable[..., Run]):
    ended = begin("cluster", "budget.minutes=10", "budget.updates=3").end()
    assert ended.code == 0, ended.output
    assert "2 nodes" in ended.output
    assert all(f"core {core}\n" in re.sub(" +\n", "\n", ended.output) for core in sorted(os.sched_getaffinity(0))[:2])
    assert len(ended.rows) == 3
    assert ended.summary["status"] == "completed"
    assert host.ask("free") == (2, 2)

    assert host.ask("hold") == (2, 1)
    refused = begin("refused").end()
    assert refused.code == 2, refused.output
    assert "has 1 of 2 cores free and the run needs 2" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize("host", ["disabled"], indirect=True)
@pytest.mark.usefixtures("host")
def test_cluster_without_authentication_is_refused_unless_that_is_said(begin: Callable[..., Run]):
    refused = begin("open").end()
    assert refused.code == 2, refused.output
    assert "was not started with RAY_AUTH_MODE=token" in refused.output

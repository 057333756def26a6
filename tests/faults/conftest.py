"""Real runs whose processes are killed. The fault table is printed at the end of the session."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.shared_memory import segments
from tests.e2e.conftest import boxing_model, read_rows, read_summary, start

__all__ = ["boxing_model", "start"]

GONE_S = 30.0
"""Within which every process of a run is gone after it has ended, or was killed."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
AGENTS_S = 150.0
"""Ray's own agents, which hold nothing of the run, first try to reach the dead head for about a minute."""

ENGINE = "VLLM::EngineCore"
ROLLOUT = "ray::RolloutActor"
REWARD = "ray::RewardActor"
LEARNER = "ray::LearnerActor"
COORDINATOR = "ray::CoordinatorActor"
JUDGE = "judge"
"""Names of processes, as the kernel has them; a judge is a child of the fork server among the reward actor's."""


class Run:
    """A run in processes of its own, with everything it has started so far."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.family: dict[int, psutil.Process] = {}
        self.agents: set[psutil.Process] = set()
        self.shared: set[Path] = set()

    @property
    def updates(self) -> int:
        file = self.folder / "metrics.jsonl"
        rows = read_rows(self.folder) if file.exists() and file.read_text().endswith("\n") else []
        return int(rows[-1]["update"]) if rows else 0

    def look(self) -> list[psutil.Process]:
        """The processes of the run that live now."""
        try:
            members = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            members = []
        self.family.update({member.pid: member for member in members})
        self.agents.update(member for member in members if any(_named(member, title) for title in AGENTS))
        self.shared |= segments(member.pid for member in members if _named(member, "VLLM"))
        return members

    def wait_until(self, happened: Callable[[], bool], what: str, seconds: float = 600.0, pause: float = 0.05) -> float:
        """Seconds until something has happened; fails if the run ends or the time passes before."""
        began = time.monotonic()
        while not happened():
            if self.process.poll() is not None:
                pytest.fail(f"the run ended with {self.process.returncode} before {what}:\n{self.output()}")
            if time.monotonic() - began > seconds:
                self.process.kill()
                pytest.fail(f"no {what} within {seconds:.0f} s:\n{self.output()}")
            time.sleep(pause)
        return time.monotonic() - began

    def wait_for_update(self, update: int) -> float:
        return self.wait_until(lambda: self.updates >= update, f"update {update}")

    def find(self, title: str) -> psutil.Process:
        """One process of the run by its name."""
        members = self.look()
        if title == JUDGE:
            [actor] = [member for member in members if _named(member, REWARD)]
            server = next(child for child in actor.children() if "forkserver" in " ".join(child.cmdline()))
            return server.children()[0]
        return next(member for member in members if _named(member, title))

    def kill(self, *titles: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to all of these at once."""
        victims = [self.find(title) for title in titles]
        for victim in victims:
            victim.send_signal(number)

    def output(self) -> str:
        return self.process.communicate()[0]

    def end(self) -> "Ended":
        """Wait for the end; checks that no process and no shared memory is left."""
        self.look()
        output = self.output()
        self.check_nothing_left()
        return Ended(self.process.returncode, output, self.folder)

    def check_nothing_left(self) -> None:
        for patience, agents in ((GONE_S, False), (AGENTS_S, True)):
            awaited = [process for process in self.family.values() if (process in self.agents) == agents]
            _, alive = psutil.wait_procs(awaited, timeout=patience)
            left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
            assert [(process.pid, process.name()) for process in left] == []
        assert [file for file in self.shared if file.exists()] == []


class Ended:
    def __init__(self, code: int, output: str, folder: Path) -> None:
        self.code = code
        self.output = output
        self.folder = folder

    @property
    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.folder)

    def events(self, kind: str) -> list[str]:
        return [event["detail"] for event in self.summary["events"] if kind in event["event"]]


def _named(process: psutil.Process, title: str) -> bool:
    try:
        return process.name().startswith(title[:15]) and any(part.startswith(title) for part in process.cmdline()[:1])
    except psutil.NoSuchProcess:
        return False


def _launcher(start: Callable[..., "subprocess.Popen[str]"]) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def launch(name: str, *settings: str) -> Run:
        runs.append(Run(start(name, "budget.minutes=30", *settings), start.folder / name))  # type: ignore[attr-defined]
        return runs[-1]

    yield launch
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.communicate()


@pytest.fixture
def begin(start: Callable[..., "subprocess.Popen[str]"]) -> Iterator[Callable[..., Run]]:
    """Start a run by name, with further settings; whatever is left of it at the end of the test is killed."""
    yield from _launcher(start)


@pytest.fixture(scope="module")
def begin_once(start: Callable[..., "subprocess.Popen[str]"]) -> Iterator[Callable[..., Run]]:
    """The same for a run that the tests of a module share."""
    yield from _launcher(start)


@pytest.fixture(scope="session")
def table() -> Iterator[list[tuple[str, str, float]]]:
    """Rows of (fault, what was lost, seconds to recover), printed at the end."""
    rows: list[tuple[str, str, float]] = []
    yield rows
    print()
    for fault, lost, seconds in rows:
        print(f"{fault:<44} {lost:<60} {seconds:6.1f} s")

"""Real runs whose processes are killed."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import boxing_model, read_summary, start
from tests.json_lines import read_rows

__all__ = ["boxing_model", "start"]

GONE_S = 120.0
"""Within which every process of a run is gone after it has ended, or was killed."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
AGENTS_S = 150.0
"""Ray's own agents, which hold nothing of the run, first try to reach the dead head for about a minute."""

ROLLOUT = "ray::RolloutActor"
REWARD = "ray::RewardActor"
LEARNER = "ray::LearnerActor"
COORDINATOR = "ray::CoordinatorActor"
WORKER = "reward worker"
"""Names of processes, as the kernel has them. But a reward worker is a child of the reward actor's fork server."""


class Run:
    """A run in processes of its own, with everything it has started so far."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.family: dict[int, psutil.Process] = {}
        self._lines: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)  # a full pipe would stop the run
        self._listener.start()

    @property
    def updates(self) -> int:
        rows = read_rows(self.folder / "metrics.jsonl")
        return int(rows[-1]["update"]) if rows else 0

    def events(self, kind: str) -> list[str]:
        """What has been written down so far of events of this kind."""
        return [event["detail"] for event in read_rows(self.folder / "events.jsonl") if kind in event["event"]]

    def look(self) -> list[psutil.Process]:
        """The processes of the run that live now: of the session that its driver began, whoever their parent is."""
        members = [member for member in psutil.process_iter() if member.pid != self.process.pid and self._holds(member)]
        self.family.update({member.pid: member for member in members})
        return members

    def listening(self) -> dict[str, str]:
        """Names of its processes by the addresses on which they listen."""
        return {
            f"{connection.laddr.ip}:{connection.laddr.port}": member.name()
            for member in self.look()
            for connection in member.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }

    def _holds(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.process.pid
        except ProcessLookupError:
            return False

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
        """One process of the run by its name, once it is there."""
        if title == WORKER:
            [actor] = [member for member in self.look() if named(member, REWARD)]
            server = next(child for child in actor.children() if "forkserver" in " ".join(child.cmdline()))
            return server.children()[0]
        found: list[psutil.Process] = []

        def look() -> bool:
            found.extend(member for member in self.look() if named(member, title))
            return bool(found)

        self.wait_until(look, title)
        return found[0]

    def kill_each_new(self, title: str, times: int) -> None:
        """Kill the process of this name, and each of its successors, so many times in all."""
        killed: set[int] = set()

        def kill_the_next() -> bool:
            for process in self.look():
                if process.pid not in killed and named(process, title):
                    killed.add(process.pid)
                    process.kill()
            return self.process.poll() is not None or len(killed) >= times

        self.wait_until(kill_the_next, f"death {times} of {title}")

    def kill(self, *titles: str) -> None:
        """Kill all of these at once."""
        for victim in [self.find(title) for title in titles]:
            victim.kill()

    def output(self) -> str:
        """All it has printed, once it has ended."""
        self.process.wait()
        self._listener.join()
        return "".join(self._lines)

    def said(self, start: str) -> str:
        """Wait for a line that begins like this."""
        self.wait_until(lambda: any(line.startswith(start) for line in self._lines), f"line {start!r}")
        return next(line for line in self._lines if line.startswith(start))

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.append(line)

    def end(self, number: int = 0) -> "Ended":
        """Send a signal, if any, and wait for the end; check that no process and no shared memory is left."""
        if number:
            self.process.send_signal(number)
        self.look()
        output = self.output()
        self.check_nothing_left()
        return Ended(self.process.returncode, output, self.folder)

    def check_nothing_left(self) -> None:
        _, alive = psutil.wait_procs(list(self.family.values()), timeout=GONE_S)
        agents = [process for process in alive if any(named(process, title) for title in AGENTS)]
        for process in agents:
            process.wait(AGENTS_S)
        left = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert [(process.pid, process.cmdline()) for process in left] == []


class Ended:
    """What a process of a run left behind."""

    def __init__(self, code: int, output: str, folder: Path) -> None:
        self.code = code
        self.output = output
        self.folder = folder
        self.rows = read_rows(folder / "metrics.jsonl")
        self.summary: dict[str, Any] = read_summary(folder) if (folder / "summary.json").exists() else {}

    def events(self, kind: str) -> list[str]:
        return [event["detail"] for event in self.summary["events"] if kind in event["event"]]


def latest(folder: Path) -> int:
    """Version of the newest checkpoint; 0 without one."""
    link = folder / "checkpoints" / "latest"
    return int(link.resolve().name.removeprefix("update-")) if link.exists() else 0


def learned_from(ended: Ended) -> dict[int, str]:
    """Problem by group index of all groups behind the adapter; fails if one was learned from twice."""
    seen: dict[int, str] = {}
    for row in ended.rows:
        samples = read_rows(ended.folder / "samples" / f"update-{row['update']:06d}.jsonl")
        groups = {sample["group"]: sample["problem"] for sample in samples}
        assert not groups.keys() & seen.keys()
        seen.update(groups)
    return seen


def named(process: psutil.Process, title: str) -> bool:
    try:
        return process.name().startswith(title[:15])  # as much as the kernel keeps
    except psutil.NoSuchProcess:
        return False


def launcher(start: Callable[..., "subprocess.Popen[str]"]) -> Iterator[Callable[..., Run]]:
    """Starts runs by name, with further settings, arguments of Popen and half an hour's time; what is left of them in
    the end is killed.
    """
    runs: list[Run] = []

    def launch(name: str, *settings: str, **process: Any) -> Run:
        given = dict(setting.split("=", 1) for setting in settings)
        time = () if "budget.minutes" in given else ("budget.minutes=30",)
        folder = Path(given.get("run.folder", start.folder))  # type: ignore[attr-defined]
        runs.append(Run(start(name, *time, *settings, **process), folder / name))
        return runs[-1]

    yield launch
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.output()


@pytest.fixture
def begin(start: Callable[..., "subprocess.Popen[str]"]) -> Iterator[Callable[..., Run]]:
    """Start a run by name, with further settings; whatever is left of it at the end of the test is killed."""
    yield from launcher(start)


@pytest.fixture(scope="module")
def begin_once(start: Callable[..., "subprocess.Popen[str]"]) -> Iterator[Callable[..., Run]]:
    """The same for a run that the tests of a module share."""
    yield from launcher(start)

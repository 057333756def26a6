import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray.dashboard.subprocesses.module import SubprocessModule
from ray.dashboard.utils import get_all_modules

from microbudget_rl.actors.runtime import ray_session
from microbudget_rl.actors.runtime.placement import place
from microbudget_rl.actors.runtime.ray_session import (
    NOTE,
    RAY,
    BackgroundContext,
    clear_session,
    make_temporary,
    require_token,
)
from microbudget_rl.actors.storage.folders import MARK
from microbudget_rl.conf.errors import BadInput, TryLater
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.conf.signals import blocked


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The temporary folder of the session of an earlier process of the run in `tmp_path`."""
    made = make_temporary(tmp_path)
    (made / RAY / "session_1" / "logs").mkdir(parents=True)
    return made


@pytest.fixture(autouse=True)
def private(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder for temporary files."""
    folder = tmp_path_factory.mktemp("private")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(ray_session, "SOCKET", 1000)
    return folder


def test_processes_and_files_of_an_earlier_session_are_gone_at_once(tmp_path: Path, temporary: Path):
    server = tmp_path / "raylet"
    server.write_text("#!/bin/sh\n(while kill -0 $$; do sleep 0.5; done) 2> /dev/null &\necho started\nwait\n")
    server.chmod(0o755)
    with subprocess.Popen([server, temporary / RAY / "session_1"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        [worker] = psutil.Process(process.pid).children()
        clear_session(tmp_path)
        assert process.poll() is not None
        assert not worker.is_running()
    assert not temporary.exists()
    clear_session(tmp_path)


def test_worker_that_outlived_its_servers_is_ended(tmp_path: Path, temporary: Path):
    session, other = temporary / RAY / "session_1", Path(f"{temporary}2")
    other.mkdir()
    program = tmp_path / "ray::Learner"
    program.symlink_to("/bin/sleep")
    with contextlib.ExitStack() as files:
        logs = [files.enter_context((folder / "worker.out").open("w")) for folder in (session, other)]
        orphan, of_another_run = (subprocess.Popen([program, "60"], stdout=log) for log in logs)
        reader = subprocess.Popen(["sleep", "60"], stdout=logs[0])
    try:
        clear_session(tmp_path)
        assert orphan.poll() is not None
        assert of_another_run.poll() is None
        assert reader.poll() is None
    finally:
        for process in (orphan, of_another_run, reader):
            process.kill()
            process.wait()


@pytest.mark.parametrize("how", ["copied run", "no mark", "open to others", "link", "not a note"])
def test_what_was_not_made_for_the_run_is_neither_deleted_nor_killed(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    note, run = json.loads((tmp_path / NOTE).read_text()), tmp_path
    if how == "copied run":
        run = tmp_path / "copy"
        run.mkdir()
    elif how == "no mark":
        (temporary / MARK).unlink()
    elif how == "open to others":
        temporary.chmod(0o755)
    elif how == "link":
        link = temporary.with_name("link")
        link.symlink_to(temporary)
        note["temporary"] = str(link)
    (run / NOTE).write_text(str(temporary) if how == "not a note" else json.dumps(note))
    monkeypatch.setattr(ray_session, "end_processes", lambda *_: pytest.fail("processes were to be killed"))
    clear_session(run)
    assert (temporary / RAY / "session_1" / "logs").exists()


def test_ctrl_z_stops_the_driver_and_not_the_servers_that_it_starts():
    def blocks(status: str) -> bool:
        return bool(int(re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)[0], 16) & 1 << (signal.SIGTSTP - 1))

    with blocked(signal.SIGTSTP):
        server = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    assert blocks(server)
    assert not blocks(Path("/proc/self/status").read_text())


@pytest.mark.parametrize(("beyond", "root"), [(0, ""), (1, "/tmp")])
def test_sessions_are_in_a_private_folder_with_room_for_sockets(
    beyond: int, root: str, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = max((each.__name__ for each in get_all_modules(SubprocessModule)), key=len)
    name = f"{RAY}/session_{datetime.today():%Y-%m-%d_%H-%M-%S_%f}_{2**22}/sockets/dash_{module}"
    private.chmod(0o777)
    monkeypatch.setattr(ray_session, "SOCKET", len(f"{private}/mbrl-{os.getuid()}/run-12345678/{name}") - beyond)
    folder = make_temporary(tmp_path)
    assert folder.is_relative_to(root or private)
    assert {place.stat().st_mode & 0o777 for place in (folder, folder.parent)} == {0o700}
    clear_session(tmp_path)
    assert not folder.exists()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("there", [True, False])
def test_the_token_is_its_users_alone_or_is_refused(home: Path, there: bool, monkeypatch: pytest.MonkeyPatch):
    folder = home / ".ray"
    if there:
        folder.mkdir(mode=0o755)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(BadInput, match="RAY_AUTH_MODE=disabled"):
        require_token()
    monkeypatch.delenv("RAY_AUTH_MODE")
    require_token()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    folder.write_text("")
    with pytest.raises(BadInput, match="HOME"):
        require_token()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Start Ray where each try takes so many seconds and fails, but for the last; return the number of tries."""

    def start(*seconds: float, minutes: float = 60.0, said: str = "The current node timed out during startup.") -> int:
        now, tries = [0.0], list[float]()

        def start_ray(*_: Any) -> Any:
            tries.append(seconds[len(tries)])
            now[0] += tries[-1]
            if len(tries) < len(seconds):
                raise Exception(said)
            return "context"

        monkeypatch.setattr(ray_session, "start_ray", start_ray)
        monkeypatch.setattr(ray_session, "time", SimpleNamespace(monotonic=lambda: now[0]))
        config = changed(Config(), {"budget.minutes": minutes})
        assert ray_session.start_in_time(config, place((0,), 0), False, Path("/nowhere")) == "context"
        return len(tries)

    return start


def test_ray_that_starts_too_slowly_is_started_again_within_the_budget(
    starts: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    assert starts(5.0) == 1
    assert starts(30.0, 30.0, 5.0) == 3
    assert capsys.readouterr().out.count("starting it again") == 2
    with pytest.raises(TryLater, match="60 s"):
        starts(30.0, 30.0, 30.0, 5.0, minutes=2.5)


@pytest.mark.parametrize(("seconds", "said"), [(1.0, "timed out during startup"), (30.0, "no such folder")])
def test_error_of_ray_that_comes_at_once_or_is_another_is_raised_as_it_is(
    seconds: float, said: str, starts: Callable[..., int]
):
    with pytest.raises(Exception, match=said) as raised:
        starts(seconds, 5.0, said=said)
    assert not isinstance(raised.value, TryLater)


def test_thread_that_entered_a_context_early_lives_until_it_is_left():
    """Otherwise the kernel would kill the processes that it has started."""
    left = []

    @contextlib.contextmanager
    def context() -> Iterator[threading.Thread]:
        yield threading.current_thread()
        left.append(True)

    with BackgroundContext(context()) as thread:
        thread.join(0.2)
        assert thread.is_alive()
        assert not left
    assert left

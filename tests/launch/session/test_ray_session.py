import contextlib
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from launch.session import ray_session
from launch.session.ray_session import clear_session, note_session, out_of_the_terminals_reach, sessions_folder


def test_session_of_an_earlier_process_is_deleted(tmp_path: Path) -> None:
    session = tmp_path / "ray" / "session_2026-01-01_00-00-00_000000_1"
    (session / "logs").mkdir(parents=True)
    note_session(tmp_path, session)
    clear_session(tmp_path)
    assert not session.exists()
    clear_session(tmp_path)


def test_what_is_left_of_a_session_is_gone_before_room_is_measured(tmp_path: Path) -> None:
    session = tmp_path / "ray" / "session_2026-01-01_00-00-00_000000_1"
    session.mkdir(parents=True)
    note_session(tmp_path, session)
    server = tmp_path / "raylet"
    server.write_text("#!/bin/sh\n(while kill -0 $$; do sleep 0.5; done) 2> /dev/null &\necho started\nwait\n")
    server.chmod(0o755)
    with subprocess.Popen([server, session], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        [worker] = psutil.Process(process.pid).children()
        clear_session(tmp_path)
        assert process.poll() is not None
        assert not worker.is_running()


def test_worker_that_outlived_its_servers_is_ended(tmp_path: Path) -> None:
    session, other = (tmp_path / "ray" / f"session_2026-01-01_00-00-00_00000{number}_1" for number in (0, 1))
    for folder in (session, other):
        folder.mkdir(parents=True)
    note_session(tmp_path, session)
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


def test_nothing_but_a_session_is_deleted(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    note_session(tmp_path, precious)
    clear_session(tmp_path)
    assert precious.exists()


def blocked(status: str) -> int:
    """The mask of blocked signals in the text of a /proc/PID/status."""
    return int(re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)[0], 16)


def test_keyboard_stops_the_driver_and_not_the_servers_that_it_starts() -> None:
    with out_of_the_terminals_reach():
        server = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    bit = 1 << (signal.SIGTSTP - 1)
    assert blocked(server) & bit
    assert not blocked(Path("/proc/self/status").read_text()) & bit


@pytest.mark.parametrize(("longest", "root"), [(1000, ""), (10, "/tmp")])
def test_sessions_are_in_a_private_folder_with_room_for_sockets(
    longest: int, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_session, "LONGEST", longest)
    folder = sessions_folder()
    assert folder.is_relative_to(root or tmp_path)
    assert folder.name == "ray"
    assert folder.parent.stat().st_mode & 0o777 == 0o700

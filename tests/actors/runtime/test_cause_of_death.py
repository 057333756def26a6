import subprocess
import threading
from pathlib import Path

import pytest

from microbudget_rl.actors.runtime.cause_of_death import ExitWatcher, cause_of_death, describe_exit, find_log

RAY = """The actor died unexpectedly before finishing this task.
\tclass_name: RolloutActor
\tpid: 6058
\tname: rollout-0
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "exit code 3"),
        (-11, "SIGSEGV"),
        (-7, "/dev/shm"),
        (-9, "out-of-memory"),
    ],
)
def test_status_in_words(code: int, words: str):
    assert words in describe_exit(code)


def test_watcher_waits_for_the_end_of_a_process_that_is_dying():
    child = subprocess.Popen(["sleep", "60"])
    watcher = ExitWatcher(child.pid)
    threading.Timer(0.2, child.kill).start()
    watcher.findings()
    assert child.poll() is not None


def test_log_is_found_by_the_process_id_that_ray_names(tmp_path: Path):
    log = tmp_path / "worker-541abb-01000000-6058.err"
    log.touch()
    (tmp_path / "worker-9011f7-01000000-16058.err").touch()
    assert find_log(tmp_path, None, RAY) == find_log(tmp_path, 6058, "") == log
    assert find_log(tmp_path, 1, RAY) is None


def test_cause_is_one_line_with_the_last_word_of_the_log(tmp_path: Path):
    log = tmp_path / "worker-541abb-01000000-6058.err"
    log.write_text(":job_id:01\n:actor_name:A\nfirst\n\nlast\n")
    cause = cause_of_death(RAY, None, tmp_path)
    assert "\n" not in cause
    assert "common causes" not in cause
    assert "first" not in cause
    assert cause.endswith(f"last (log: {log})")
    log.write_text("x" * 10_000)
    assert cause_of_death(RAY, None, tmp_path).count("x") < 400


def test_crash_memory_monitor_and_failed_start_are_recognised(tmp_path: Path):
    log = tmp_path / "worker-541abb-01000000-6058.err"
    log.write_text("*** SIGSEGV received at time=1795546203 on cpu 1 ***\n")
    assert "SIGSEGV" in cause_of_death(RAY, None, tmp_path)
    monitor = "Task was killed due to the node running low on memory.\nMemory on the node was 22.9GB / 24GB"
    assert "low on memory" in cause_of_death(monitor, None, tmp_path)
    start = "The actor died because of an error raised in its creation task, ray::A.__init__()\nValueError: no room"
    assert cause_of_death(start, None, tmp_path).endswith("ValueError: no room")

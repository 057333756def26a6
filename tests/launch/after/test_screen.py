import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMAND = """
import os, subprocess, sys
from actors.errors import ActorDied
from conf.errors import BadInput
from launch.after.screen import off_screen
with off_screen("chat") as screen:
    print("a library's progress")
    print("a library's warning", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('an engine')"])
    print("Ready", file=screen)
    {end}
print("after")
"""


def run(end: str, folder: Path) -> tuple[int, str, str, list[Path]]:
    """Exit code, stdout, stderr and files left."""
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND.format(end=end)],
        env={"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout, ended.stderr, list(folder.iterdir())


def test_only_what_the_command_says_is_shown(tmp_path: Path) -> None:
    assert run("pass", tmp_path) == (0, "Ready\nafter\n", "", [])


@pytest.mark.parametrize(
    "error", ["ActorDied('killed by the kernel')", "ExceptionGroup('tasks', [RuntimeError('killed by the kernel')])"]
)
def test_engine_that_fails_is_told_with_the_place_of_its_log(error: str, tmp_path: Path) -> None:
    code, said, complaint, (log,) = run(f"raise {error}", tmp_path)
    assert (code, said) == (1, "Ready\n")
    assert complaint == f"chat.py: failed: killed by the kernel; what the engine said is in {log}\n"
    for text in ("a library's progress", "a library's warning", "an engine", "Traceback", "killed by the kernel"):
        assert text in log.read_text()


def test_other_errors_go_on_up(tmp_path: Path) -> None:
    code, _, complaint, left = run("raise BadInput('wrong')", tmp_path)
    assert (code, left) == (1, [])
    assert complaint.endswith("BadInput: wrong\n")

import os
import re
from pathlib import Path

import pytest

from conf.command import near
from launch.session.afterwards import next_steps
from launch.session.origin import origin


def test_origin_repeats_the_command_without_what_is_private() -> None:
    found = origin(["conf=mine", "data.source=file:my problems.csv", "run.on_end=curl secret"], "CPU, 2 cores")
    assert found["command"] == 'python launch/run.py conf=mine "data.source=file:my problems.csv"'
    assert found["machine"] == "CPU, 2 cores"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d[+-]\d\d:\d\d", found["started"])
    assert re.fullmatch(r"([0-9a-f]{10}\+?)?", found["commit"])


@pytest.mark.parametrize("status", ["interrupted", "failed", "halted"])
def test_a_run_that_can_go_on_says_how(status: str) -> None:
    assert next_steps({"status": status, "updates": 3}, Path("runs/one")) == ["The same command resumes the run."]


def test_a_finished_run_says_what_it_is_good_for(tmp_path: Path) -> None:
    steps = next_steps({"status": "completed", "updates": 3}, tmp_path / "runs" / "one")
    assert steps[1] == "  talk to it    python launch/chat.py runs/one"
    assert next_steps({"status": "completed", "updates": 0}, tmp_path) == []


def test_paths_are_shown_as_they_are_typed_here(tmp_path: Path) -> None:
    assert near(tmp_path / "runs" / "one") == os.path.join("runs", "one")
    assert near(Path("/elsewhere")) == "/elsewhere"

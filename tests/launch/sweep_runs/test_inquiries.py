"""What a sweep asks the doctor, for whom a stand-in answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch import sweep
from launch.reporting import write
from launch.reporting.exams.tables import signals
from launch.reporting.history import read_sweep
from tests.launch.sweep_runs.stand_ins import calls, two_gpus

ASKED = ("ranks=[1,2]", "sweep.signal=true")


def entry(folder: Path) -> dict[str, Any]:
    """The only signal in sweep.json."""
    (found,) = json.loads((folder / "s" / "sweep.json").read_text())["signals"]
    return dict(found)


@pytest.mark.parametrize("warning", ["", "Too hard: no response is right; take easier problems."])
def test_the_doctor_is_asked_once_per_model_and_the_runs_follow_whatever_it_says(
    warning: str, sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert sweeping(*ASKED, **{"signal-r1": {"warning": warning}}) == 0
    assert calls(tmp_path) == ["signal-r1", "r1", "r2"]
    said = entry(tmp_path)
    assert (said["name"], said["status"], said["reason"]) == ("base", "completed", warning or None)
    assert said["signal"]["figures"]["pass@1"]["interval"] == [0.15, 0.35]
    assert (f"signal of base: completed, {warning}" in capsys.readouterr().out) == bool(warning)
    ((name, first, last, gap, useful, verdict, _),) = signals(read_sweep(tmp_path / "s")).body
    assert (first, last[:4], gap, useful[:4]) == ("25.0 (15.0 to 35.0)", "75.0", "+50.0", "50.0")
    assert (name, verdict) == ("smollm2-135m", "too hard" if warning else "worth it")
    write(tmp_path / "s")
    page = (tmp_path / "s" / "report.md").read_text()
    assert "+50.0" in page
    assert ("no response is right" in page) == bool(warning)


def test_runs_on_other_gpus_wait_and_a_doctor_without_an_answer_is_asked_again(
    sweeping: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "divide", two_gpus)
    asked = (*ASKED, "sweep.minutes=6")
    assert sweeping(*asked, **{"signal-r1": {"code": 1}}) == 1
    assert (entry(tmp_path)["status"], entry(tmp_path)["reason"]) == ("failed", "no such thing")
    assert sweeping(*asked) == 0
    first, *runs, last = (tmp_path / "s" / "calls").read_text().splitlines()
    assert first == last == "signal-r1 6.0"  # a GPU has one run of the two
    assert sorted(run.split()[0] for run in runs) == ["r1", "r2"]

"""Sweeps whose runs are carried out by a stand-in for `launch/run.py`."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.models.files import pin_of
from microbudget_rl.actors.storage.documents import LedgerRecord, RunSummary
from microbudget_rl.actors.storage.files import lock
from microbudget_rl.actors.storage.folders import claim, mark
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch import sweep
from microbudget_rl.launch.reporting import conclusion
from microbudget_rl.launch.sweep import main
from microbudget_rl.launch.sweep_runs.grid import read_grid
from tests.launch.sweep_runs.stand_ins import calls, command, statuses, two_gpus

pytestmark = pytest.mark.long


def test_runs_are_carried_out_once_and_their_results_shown(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert sweeping("ranks=[8,64]", "seeds=[0,1]") == 0
    assert calls(tmp_path) == ["r8-seed0", "r64-seed0", "r8-seed1", "r64-seed1"]
    assert set(statuses(tmp_path).values()) == {("completed", "as told")}
    shown = capsys.readouterr().out
    assert "0.400–0.600" in shown
    assert shown.rstrip().splitlines()[-1] == conclusion(tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "r64-seed0")
    assert sweeping("ranks=[8,64]", "seeds=[0,1]") == 0
    assert calls(tmp_path)[4:] == ["r64-seed0"]


def test_runs_of_a_model_share_its_commit(tmp_path: Path):
    """That of the run that has begun, if there is one."""
    grid = read_grid(command(tmp_path, "seeds=[0,1]"))
    sweep.pin_models(grid)
    pins = {argument for run in grid.runs for argument in run.arguments if argument.startswith("model.pin=")}
    assert pins == {f"model.pin={pin_of(grid.runs[0].config.model)}"}
    assert [load(list(run.arguments)) for run in grid.runs] == [run.config for run in grid.runs]
    grid = read_grid(command(tmp_path, "seeds=[0,1]"))
    grid.runs[1].config = changed(grid.runs[1].config, {"model.pin": "b" * 40})
    sweep.pin_models(grid)
    for run in grid.runs:  # that of the run that has begun too, which may start anew
        assert load(list(run.arguments)).model.pin == run.config.model.pin == "b" * 40


def test_failed_run_does_not_stop_the_rest_and_is_tried_again(sweeping: Callable[..., int], tmp_path: Path):
    """A signal may end a run before it has a handler."""
    ends: dict[str, dict[str, Any]] = {"r1": {"end": [1, "failed"]}, "r2": {"code": 2}, "r4": {"end": [3, "halted"]}}
    assert sweeping("ranks=[1,2,4,8,16]", **ends, r8={"signal": signal.SIGTERM}) == 1
    ended = ["failed", "failed", "halted", "interrupted", "completed"]
    assert [status for status, _ in statuses(tmp_path).values()] == ended
    assert [statuses(tmp_path)[run][1] for run in ("r1", "r2", "r4")] == ["as told", "no such thing", "as told"]
    assert sweeping("ranks=[1,2,4,8,16]", r1={"code": 2}) == 1
    assert statuses(tmp_path)["r1"] == ("failed", "no such thing")
    assert sweeping("ranks=[1,2,4,8,16]") == 0
    assert calls(tmp_path)[5:] == ["r1", "r2", "r4", "r8", "r1"]


def test_run_without_time_begins_anew_if_nothing_is_saved(sweeping: Callable[..., int], tmp_path: Path):
    run, given, own = RunFolder(tmp_path / "s" / "r1"), ["ranks=[1,2]", "model.dtype=float32"], "budget.minutes=2"
    claim(run.path.parent, "sweep")
    run.path.mkdir()
    (run.path / "config.yaml").write_text(dump(read_grid(command(tmp_path, *given)).runs[0].config))
    shared, stopped = ("failed", "sweep.minutes=4", "more time"), ("interrupted", own, "minutes=")
    for status, budget, told in (shared, stopped, ("failed", own, "anew"), ("failed", own, "minutes=")):
        run.write_ending(RunSummary(status=status))
        run.write_spent(108.0, LedgerRecord(start_s=30.0))
        sweeping(*given, budget)
        assert told in str(statuses(tmp_path)["r1"][1])


def test_shared_budget_is_split_over_what_is_left(sweeping: Callable[..., int], tmp_path: Path):
    assert sweeping("ranks=[1,2,4]", "sweep.minutes=9", r1={"spent": 60.0}, r2={"spent": 240.0}) == 0
    given = [float(line.split()[1]) for line in (tmp_path / "s" / "calls").read_text().splitlines()]
    assert given == [3.0, 4.0, 4.0]


def test_runs_work_side_by_side_on_gpus_of_their_own(
    sweeping: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sweep, "divide", two_gpus)
    assert sweeping("ranks=[1,2,4]", r1={"beside": "r2"}) == 0
    assert sorted((tmp_path / "s" / "calls").read_text().splitlines()) == ["r1 3", "r2 5", "r4 3"]
    assert sweeping("ranks=[1,2,4]", "run.nvidia_mps=on", "sweep.name=other") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["budget.minutes=0.1"], "r8 has"),
        (["device=A40"], "A40"),
        (["models=[/no/such/folder]"], "/no/such/folder"),
        (["benchmarks=[file:nowhere.csv]"], "nowhere.csv"),
        (["benchmarks=[file:unanswered.csv]"], "no usable problem"),
        (["data.source=file:nowhere.csv"], "nowhere.csv"),
        (["data.source=reasoning_gym:nothing", "data.parameters={}", "data.problem_pattern="], "nothing"),
    ],
)
def test_impossible_sweep_is_refused_before_the_first_run(
    arguments: list[str], words: str, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unanswered.csv").write_text("problem,answer\n1 + 2,\n")
    ranks = [] if arguments[0].startswith("models") else ["ranks=[8]"]
    assert words in refused(main, command(tmp_path, *ranks, *arguments))
    assert not (tmp_path / "s").exists()


def test_run_at_work_in_another_process_is_waited_for(sweeping: Callable[..., int], tmp_path: Path):
    """After a sweep was killed, its run may still be saving its work."""
    descriptor = lock(tmp_path / "s" / "r1")
    assert descriptor is not None
    (tmp_path / "s" / "calls").touch()
    mark(tmp_path / "s", "sweep")
    release = threading.Timer(0.3, os.close, [descriptor])
    release.start()
    assert sweeping("ranks=[1,2]") == 0
    assert not release.is_alive()
    assert calls(tmp_path) == ["r1", "r2"]


def test_what_contradicts_the_folder_is_refused(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Fewer runs, and runs that were begun with other settings."""
    assert sweeping("ranks=[1,2]") == 0
    assert sweeping("ranks=[1,4]") == 2
    assert "r2" in capsys.readouterr().err
    assert statuses(tmp_path).keys() == {"r1", "r2"}
    assert sweeping("ranks=[1,2,4]") == 0
    begun = dump(load(["conf=quickstart", "model.dtype=float32", "lora.alpha=3"]))
    (tmp_path / "s" / "r4" / "config.yaml").write_text(begun)
    assert sweeping("ranks=[1,2,4]") == 2
    assert "lora.alpha=3" in capsys.readouterr().err

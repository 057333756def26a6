"""Exams of sweeps, carried out by a stand-in for `launch/evaluate.py`."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from conf.load import load
from launch import sweep
from launch.sweep_runs.grid import read_grid
from tests.launch.sweep_runs.stand_ins import calls, command, start, statuses, wait_for_call

EXAMS = ("benchmarks=[aime24,file:sums.csv]", "n=16")


@pytest.fixture(autouse=True)
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip what an evaluation would check of model and benchmarks."""
    monkeypatch.setattr(sweep, "prepare", lambda *_: None)


def exams(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Status and reason of each exam."""
    document = json.loads((folder / "s" / "sweep.json").read_text())
    return {base["name"]: (base["status"], base["reason"]) for base in document["bases"]} | {
        run["name"]: (run["exam"], run["reason"]) for run in document["runs"]
    }


def test_only_exams_are_limited(tmp_path: Path) -> None:
    """A run refuses the setting."""
    grid = read_grid(command(tmp_path, "ranks=[1,2]", "limit=9"))
    assert grid.limit == 9
    assert not [given for run in grid.runs for given in run.arguments if given.startswith("limit")]


def test_results_are_examined_after_their_run_and_a_base_model_once(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("ranks=[1,2]", "seeds=[3,1]", "limit=9", *EXAMS)
    assert sweeping(*asked) == 0
    order = [
        "exam-base",
        *(f"{exam}r{rank}-seed{seed}" for seed in (3, 1) for rank in (1, 2) for exam in ("", "exam-")),
    ]
    assert calls(tmp_path) == order
    assert ["base", "completed"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    logs = {"base-exam", *(f"r{rank}-seed{seed}{exam}" for rank in (1, 2) for seed in (1, 3) for exam in ("", "-exam"))}
    assert {file.stem for file in (tmp_path / "s").glob("*.log")} == logs
    document = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert (document["benchmarks"], document["n"], document["pass_at"]) == (["aime24", "file:sums.csv"], 16, [1, 8, 16])
    assert {status for status, _ in exams(tmp_path).values()} == {"completed"}
    assert document["bases"][0]["overrides"] == {}
    evaluations = {name: tmp_path / "s" / name / "evaluation" / "evaluation.json" for name in ("base", "r2-seed1")}
    base, given = (json.loads(file.read_text())["given"] for file in evaluations.values())
    assert (given["base"], given["adapter"]) == (
        str(tmp_path / "s" / "base" / "evaluation"),
        f"{tmp_path}/s/r2-seed1",
    )
    assert (base["limit"], base["run.seed"], given["run.seed"], "adapter" in base) == ("9", "3", "3", False)
    assert float(base["budget.hours"]) > 24
    assert load([f"{key}={value}" for key, value in base.items()]).run.name == "base"
    assert sweeping(*asked) == 0
    shutil.rmtree(tmp_path / "s" / "r2-seed3" / "evaluation")
    assert sweeping(*asked) == 0
    assert calls(tmp_path)[len(order) :] == ["exam-r2-seed3"]


def test_exams_of_what_has_failed_are_left_out_with_the_reason(sweeping: Callable[..., int], tmp_path: Path) -> None:
    assert sweeping("ranks=[1,2]", *EXAMS, r1={"end": [3, "halted"]}, **{"exam-r2": {"code": 1}}) == 1
    assert exams(tmp_path) == {
        "base": ("completed", None),
        "r1": ("skipped", "as told"),
        "r2": ("failed", "exam: no such thing"),
    }
    shutil.rmtree(tmp_path / "s" / "base")
    assert sweeping("ranks=[1,2]", *EXAMS, **{"exam-base": {"code": 2}}) == 1
    assert calls(tmp_path)[-2:] == ["exam-base", "r1"]
    assert exams(tmp_path)["base"] == ("failed", "no such thing")
    status, reason = exams(tmp_path)["r2"]
    assert (status, "base" in str(reason), "no such thing" in str(reason)) == ("failed", True, True)
    assert sweeping("ranks=[1,2]", *EXAMS) == 0
    assert calls(tmp_path)[-3:] == ["exam-base", "exam-r1", "exam-r2"]


def test_exam_of_another_policy_or_seed_does_not_count(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("ranks=[1,2]", "seeds=[0,1]", *EXAMS)
    assert sweeping(*asked) == 0
    (tmp_path / "s/r1-seed0/checkpoints/latest/adapter/adapter_model.safetensors").write_text("a later one")
    file = tmp_path / "s/r2-seed1/evaluation/evaluation.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    done = len(calls(tmp_path))
    assert sweeping(*asked) == 0
    assert calls(tmp_path)[done:] == ["exam-r1-seed0", "exam-r2-seed1"]
    for other in ("seeds=[1,0]", "seeds=[5,0,1]"):
        assert sweeping("ranks=[1,2]", other, *EXAMS) == 2
        assert "base/evaluation has the seed 0" in capsys.readouterr().err
    assert sweeping("ranks=[1,2]", "seeds=[0,5,1]", *EXAMS) == 0


def test_run_without_a_checkpoint_has_no_exam_and_fails_no_sweep(sweeping: Callable[..., int], tmp_path: Path) -> None:
    for _ in range(2):
        assert sweeping("ranks=[1,2]", *EXAMS, r1={"checkpoint": False}) == 0
        assert exams(tmp_path)["r1"] == ("skipped", "exam: its run has no checkpoint")
    assert calls(tmp_path) == ["exam-base", "r1", "r2", "exam-r2"]


def test_runs_wait_for_all_base_models_and_each_exam_follows_its_run_on_the_same_worker() -> None:
    grid = read_grid(["conf=paper", "models=[llama,qwen3,instruct]", "ranks=[8]", "sweep.signal=true"])
    models, runs = grid.phases(workers=2)
    assert [[f"{job.program} {job.name}" for job in own] for own in models] == [
        ["doctor base-llama", "doctor base-instruct", "evaluate base-qwen3"],
        ["doctor base-qwen3", "evaluate base-llama", "evaluate base-instruct"],
    ]
    assert [[f"{job.program} {job.name}" for job in own] for own in runs] == [
        ["run llama-r8", "evaluate llama-r8", "run instruct-r8", "evaluate instruct-r8"],
        ["run qwen3-r8", "evaluate qwen3-r8"],
    ]


@pytest.mark.parametrize(
    ("at", "by", "code", "status"),
    [
        ("r2", signal.SIGKILL, -9, "running"),
        ("r1", signal.SIGTERM, 143, "interrupted"),
        ("exam-r2", signal.SIGTERM, 143, "interrupted"),
    ],
)
def test_a_sweep_that_a_signal_ends_goes_on_without_work_done_twice(
    at: str, by: signal.Signals, code: int, status: str, sweeping: Callable[..., int], tmp_path: Path
) -> None:
    """The job at work ends with the sweep."""
    order = ["exam-base", "r1", "exam-r1", "r2", "exam-r2"]
    until = order[: order.index(at) + 1]
    process = start(tmp_path, {at: {"sleep": 600}}, "ranks=[1,2]", *EXAMS)
    wait_for_call(process, tmp_path, *until)
    process.send_signal(by)
    assert process.wait() == code
    of = exams if at.startswith("exam") else statuses
    assert of(tmp_path)[at.removeprefix("exam-")][0] == status
    assert sweeping("ranks=[1,2]", *EXAMS) == 0
    assert calls(tmp_path) == [*until, at, *order[len(until) :]]
    commands = [process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(tmp_path / "run.py") in command]


def test_other_exams_than_the_folder_has_are_refused(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping("ranks=[1]") == 0  # exams may be added to finished runs
    assert sweeping("ranks=[1]", *EXAMS) == 0
    assert calls(tmp_path) == ["r1", "exam-base", "exam-r1"]
    for other in (["n=17", EXAMS[0]], ["benchmarks=[amc23]", "n=16"], []):
        assert sweeping("ranks=[1]", *other) == 2
        assert "n=16, not benchmarks=" in capsys.readouterr().err

"""The evaluations of sweeps, carried out by a stand-in for `launch/evaluate.py`."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from microbudget_rl.conf.load import load
from microbudget_rl.launch import sweep
from microbudget_rl.launch.sweep_runs.grid import read_grid
from tests.launch.sweep_runs.stand_ins import calls, start, statuses, wait_for_call
from tests.run_folders import edited

BENCHMARKS = ("benchmarks=[aime24,file:sums.csv]", "n=16")


@pytest.fixture(autouse=True)
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip what an evaluation would check of model and benchmarks."""
    monkeypatch.setattr(sweep, "prepare", lambda *_: None)


def evaluations(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Status and reason of each evaluation."""
    document = json.loads((folder / "s" / "sweep.json").read_text())
    return {base["name"]: (base["status"], base["reason"]) for base in document["bases"]} | {
        run["name"]: (run["benchmarked"], run["reason"]) for run in document["runs"]
    }


def test_results_are_evaluated_after_their_run_and_a_base_model_once(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ("ranks=[1,2]", "seeds=[3,1]", "limit=9", *BENCHMARKS)
    assert sweeping(*asked) == 0
    runs = (f"r{rank}-seed{seed}" for seed in (3, 1) for rank in (1, 2))
    order = ["evaluate-base", *(name for run in runs for name in (run, f"evaluate-{run}"))]
    assert calls(tmp_path) == order
    assert ["base", "completed"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    logs = {file.stem for file in (tmp_path / "s").glob("*.log")}
    assert {"base-evaluation", "r1-seed1", "r1-seed1-evaluation"} < logs
    document = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert (document["benchmarks"], document["n"], document["pass_at"]) == (["aime24", "file:sums.csv"], 16, [1, 8, 16])
    assert {status for status, _ in evaluations(tmp_path).values()} == {"completed"}
    assert document["bases"][0]["overrides"] == {}
    files = {name: tmp_path / "s" / name / "evaluation" / "evaluation.json" for name in ("base", "r2-seed1")}
    assert all(json.loads(file.read_text())["fresh"] for file in files.values())  # evaluate.py claims the folder
    base, given = (json.loads(file.read_text())["given"] for file in files.values())
    assert (given["base"], given["adapter"]) == (f"{tmp_path}/s/base/evaluation", f"{tmp_path}/s/r2-seed1")
    assert (base["limit"], base["run.seed"], given["run.seed"], "adapter" in base) == ("9", "3", "3", False)
    assert float(base["budget.hours"]) > 24
    assert load([f"{key}={value}" for key, value in base.items()]).run.name == "base"
    assert sweeping(*asked) == 0
    shutil.rmtree(tmp_path / "s" / "r2-seed3" / "evaluation")
    assert sweeping(*asked) == 0
    assert calls(tmp_path)[len(order) :] == ["evaluate-r2-seed3"]


def test_evaluations_of_what_has_failed_are_left_out_with_the_reason(sweeping: Callable[..., int], tmp_path: Path):
    assert sweeping("ranks=[1,2]", *BENCHMARKS, r1={"end": [3, "halted"]}, **{"evaluate-r2": {"code": 1}}) == 1
    assert evaluations(tmp_path) == {
        "base": ("completed", None),
        "r1": ("skipped", "as told"),
        "r2": ("failed", "evaluation: no such thing"),
    }
    shutil.rmtree(tmp_path / "s" / "base")
    assert sweeping("ranks=[1,2]", *BENCHMARKS, **{"evaluate-base": {"code": 2}}) == 1
    assert calls(tmp_path)[-2:] == ["evaluate-base", "r1"]
    assert evaluations(tmp_path)["base"] == ("failed", "no such thing")
    status, reason = evaluations(tmp_path)["r2"]
    assert (status, "base" in str(reason), "no such thing" in str(reason)) == ("failed", True, True)
    assert sweeping("ranks=[1,2]", *BENCHMARKS) == 0
    assert calls(tmp_path)[-3:] == ["evaluate-base", "evaluate-r1", "evaluate-r2"]


def test_evaluation_of_another_policy_or_seed_or_of_fewer_samples_does_not_count(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ("ranks=[1,2]", "seeds=[0,1]", *BENCHMARKS)
    assert sweeping(*asked) == 0
    (tmp_path / "s/r1-seed0/checkpoints/latest/adapter/adapter_model.safetensors").write_text("a later one")
    with edited(tmp_path / "s/r2-seed1/evaluation/evaluation.json") as document:
        document["protocol"]["seed"] = 1
    with edited(tmp_path / "s/r1-seed1/evaluation/evaluation.json") as document:
        document["benchmarks"][1]["adapter"]["n"] = 4
    done = len(calls(tmp_path))
    assert sweeping(*asked) == 0
    assert calls(tmp_path)[done:] == ["evaluate-r1-seed0", "evaluate-r1-seed1", "evaluate-r2-seed1"]
    for other in ("seeds=[1,0]", "seeds=[5,0,1]"):
        assert sweeping("ranks=[1,2]", other, *BENCHMARKS) == 2
        assert "base/evaluation has the seed 0" in capsys.readouterr().err
    assert sweeping("ranks=[1,2]", "seeds=[0,5,1]", *BENCHMARKS) == 0


def test_runs_wait_for_all_base_models_and_each_evaluation_follows_its_run_on_the_same_worker():
    grid = read_grid(["conf=paper", "models=[llama,qwen3,instruct]", "ranks=[8]"])
    bases, runs = ([[f"{job.program} {job.name}" for job in own] for own in phase] for phase in grid.phases(workers=2))
    assert bases == [["evaluate base-llama", "evaluate base-instruct"], ["evaluate base-qwen3"]]
    first = ["run llama-r8", "evaluate llama-r8", "run instruct-r8", "evaluate instruct-r8"]
    assert runs == [first, ["run qwen3-r8", "evaluate qwen3-r8"]]


@pytest.mark.parametrize(
    ("at", "by", "code", "status"),
    [
        ("r2", signal.SIGKILL, -9, "running"),
        ("r1", signal.SIGTERM, 143, "interrupted"),
        ("evaluate-r2", signal.SIGTERM, 143, "interrupted"),
    ],
)
def test_a_sweep_that_a_signal_ends_goes_on_without_work_done_twice(
    at: str, by: signal.Signals, code: int, status: str, sweeping: Callable[..., int], tmp_path: Path
):
    """The job at work ends with the sweep."""
    order = ["evaluate-base", "r1", "evaluate-r1", "r2", "evaluate-r2"]
    until = order[: order.index(at) + 1]
    process = start(tmp_path, {at: {"sleep": 600}}, "ranks=[1,2]", *BENCHMARKS)
    wait_for_call(process, tmp_path, *until)
    process.send_signal(by)
    assert process.wait() == code
    of = evaluations if at.startswith("evaluate") else statuses
    assert of(tmp_path)[at.removeprefix("evaluate-")][0] == status
    assert sweeping("ranks=[1,2]", *BENCHMARKS) == 0
    assert calls(tmp_path) == [*until, at, *order[len(until) :]]
    commands = [process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(tmp_path / "run.py") in command]


def test_finished_runs_are_evaluated_later_but_on_no_other_benchmarks_and_only_with_a_checkpoint(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert sweeping("ranks=[1,2]", r2={"checkpoint": False}) == 0
    for _ in range(2):
        assert sweeping("ranks=[1,2]", *BENCHMARKS) == 0
        assert evaluations(tmp_path)["r2"] == ("skipped", "evaluation: its run has no checkpoint")
    assert calls(tmp_path) == ["r1", "r2", "evaluate-base", "evaluate-r1"]
    for other in (["n=17", BENCHMARKS[0]], ["benchmarks=[amc23]", "n=16"], []):
        assert sweeping("ranks=[1,2]", *other) == 2
        assert "n=16, not benchmarks=" in capsys.readouterr().err

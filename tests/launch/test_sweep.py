"""Sweeps whose cells are carried out by a stand-in for `launch/run.py`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from actors.storage.files import lock
from conf.load import dump, load
from launch import sweep
from launch.hardware.cards import Card
from launch.hardware.machine import GIB, Machine, detect, with_cards
from launch.plan.calibration import keep, recall
from launch.plan.plan import Plan, make_plan, with_problems
from launch.plan.time import Calibration
from launch.reporting import conclusion
from launch.sweep import machines_of, main
from launch.sweep_runs import scheduler
from launch.sweep_runs.grid import Grid, read_grid
from launch.sweep_runs.lanes import RUN, Lane, plan_lanes
from launch.sweep_runs.scheduler import Scheduler

STAND_IN = r"""
import json, os, pathlib, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given["run.folder"], given["run.name"])
folder.mkdir(parents=True, exist_ok=True)
with (folder.parent / "calls").open("a") as calls:
    budget, card = given.get("budget.minutes", ""), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    calls.write(f"{given['run.name']} {budget or card}\n")
conduct = json.loads((folder.parent.parent / "conduct.json").read_text()).get(given["run.name"], {})

def end(code, status, reason="as told"):
    after = {"pass@1": 0.5, "ci95": [0.4, 0.6], "problems": 10, "n": 1, "mean_length": 8.0, "truncated": 0.0}
    summary = {"status": status, "reason": reason, "updates": 1, "eval": {"base": after, "final": after}}
    (folder / "summary.json").write_text(json.dumps(summary))
    sys.exit(code)

signal.signal(signal.SIGTERM, lambda *_: end(143, "interrupted", "SIGTERM"))
(folder / "spent").write_text(json.dumps({"spent_s": conduct.get("spent", 60.0)}))
(folder / "spent").rename(folder / "spent.json")  # at once, as a run does
(folder / "metrics.jsonl").write_text(json.dumps({"update": 1, "reward/accuracy": 0.5}) + "\n")
time.sleep(conduct.get("sleep", 0))
while conduct.get("beside", "") not in (folder.parent / "calls").read_text():
    time.sleep(0.01)
code, status = conduct.get("end", [0, "completed"])
if code == 2:
    sys.exit(print("run.py: no such thing") or 2)
end(code, status)
"""


@pytest.fixture
def sweeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs a sweep in this process; `conduct` says what becomes of which cell."""
    monkeypatch.setattr(scheduler, "POLL_S", 0.01)
    (tmp_path / "run.py").write_text(STAND_IN)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str, **conduct: dict[str, Any]) -> int:
        (tmp_path / "conduct.json").write_text(json.dumps(conduct))
        return main(command(tmp_path, *arguments), (sys.executable, str(tmp_path / "run.py")))

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def command(folder: Path, *arguments: str) -> list[str]:
    return ["conf=quickstart", f"run.folder={folder}", "sweep.name=s", "device=cpu", *arguments]


def calls(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "s" / "calls").read_text().splitlines()]


def standing(folder: Path) -> dict[str, tuple[str, str | None]]:
    cells = json.loads((folder / "s" / "sweep.json").read_text())["cells"]
    return {cell["cell"]: (cell["status"], cell["reason"]) for cell in cells}


def test_cells_are_run_once_and_their_results_shown(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping("ranks=[8,64]", "seeds=[0,1]") == 0
    assert calls(tmp_path) == ["r8-seed0", "r64-seed0", "r8-seed1", "r64-seed1"]
    assert set(standing(tmp_path).values()) == {("completed", "as told")}
    shown = capsys.readouterr().out
    assert "0.400–0.600" in shown
    assert shown.rstrip().splitlines()[-1] == conclusion(tmp_path / "s")
    assert sweeping("ranks=[8,64]", "seeds=[0,1]") == 0
    assert len(calls(tmp_path)) == 4


def test_a_failed_cell_does_not_stop_the_rest_and_is_tried_again(sweeping: Callable[..., int], tmp_path: Path) -> None:
    ends = {"r1": {"end": [1, "failed"]}, "r2": {"end": [2, ""]}, "r4": {"end": [3, "halted"]}}
    assert sweeping("ranks=[1,2,4,8]", **ends) == 1
    assert standing(tmp_path) == {
        "r1": ("failed", "as told"),
        "r2": ("failed", "no such thing"),
        "r4": ("halted", "as told"),
        "r8": ("completed", "as told"),
    }
    assert sweeping("ranks=[1,2,4,8]") == 0
    assert calls(tmp_path)[4:] == ["r1", "r2", "r4"]


def test_a_cell_whose_folder_is_deleted_is_done_again(sweeping: Callable[..., int], tmp_path: Path) -> None:
    assert sweeping("ranks=[1,2]") == 0
    shutil.rmtree(tmp_path / "s" / "r2")
    assert sweeping("ranks=[1,2]") == 0
    assert calls(tmp_path) == ["r1", "r2", "r2"]


def test_a_shared_budget_is_split_over_what_is_left(sweeping: Callable[..., int], tmp_path: Path) -> None:
    assert sweeping("ranks=[1,2,4]", "sweep.minutes=9", r1={"spent": 60.0}, r2={"spent": 240.0}) == 0
    given = [float(line.split()[1]) for line in (tmp_path / "s" / "calls").read_text().splitlines()]
    assert given == [3.0, 4.0, 4.0]


def test_lanes_work_side_by_side_on_cards_of_their_own(
    sweeping: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_lanes(grid: Grid, machines: list[Machine], command: Sequence[str]) -> tuple[list[Lane], dict[str, Plan]]:
        plans = plan_lanes(grid, machines, command)[1]
        return [Lane(grid.cells[n::2], machines[0], card, command) for n, card in enumerate(("3", "5"))], plans

    monkeypatch.setattr(sweep, "plan_lanes", two_lanes)
    assert sweeping("ranks=[1,2,4]", r1={"beside": "r2"}) == 0
    assert sorted((tmp_path / "s" / "calls").read_text().splitlines()) == ["r1 3", "r2 5", "r4 3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ranks=[8]", "budget.minutes=0.1"], "r8 has"),
        (["ranks=[8,1000]"], "lora.rank=1000"),
        (["ranks=[8]", "learner.ranks=[1,1000]"], "learner.ranks=1000"),
        (["ranks=[8]", "device=A40"], "A40"),
        (["models=[/no/such/folder]"], "/no/such/folder"),
    ],
)
def test_what_no_cell_can_do_is_refused_before_the_first(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path)[: -1 if "device=A40" in arguments else None], *arguments], ("false",)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_cell_begun_with_other_settings_is_refused(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping("ranks=[8]") == 0
    (tmp_path / "s" / "r8" / "config.yaml").write_text(
        dump(load(["conf=quickstart", "model.dtype=float32", "lora.alpha=3"]))
    )
    assert sweeping("ranks=[8]") == 2
    assert "lora.alpha=3" in capsys.readouterr().err


def test_plan_where_cells_would_join_a_cluster_says_what_it_is_of(
    sweeping: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert sweeping("ranks=[8,64]", "plan=true") == 0
    assert "10.0.0.1:6379" in capsys.readouterr().out.splitlines()[0]


def test_a_plan_is_by_what_runs_have_measured(tmp_path: Path) -> None:
    arguments = command(tmp_path, "ranks=[8,64]")
    machine = detect("cpu")
    config = load(["conf=quickstart", f"run.folder={tmp_path}", f"model.dtype={machine.dtype}"])
    keep(Calibration(decode=3.0, of="a run"), config, machine)
    grid = read_grid(arguments)
    _, plans = plan_lanes(grid, machines_of(grid), RUN)
    assert {plan.calibration.of for plan in plans.values()} == {"a run"}
    grid.folder.mkdir()
    (grid.folder / "sweep.json").touch()
    cell = plans["r8"]
    assert recall(cell.asked, machine).of == "a run"  # the cell itself plans by it too


def test_a_plan_times_like_cells_once_and_flags_those_without_an_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Plan] = []
    monkeypatch.setattr("launch.plan.options.with_problems", lambda plan: (seen.append(plan), with_problems(plan))[1])
    axes = ("seeds=[0,1,2,3]", "learner.learning_rate=[1e-5,1e-4]", "ranks=[8,64]", "budget.minutes=0.1")
    assert main(command(tmp_path, *axes, "plan=true")) == 0
    assert len(seen) == 2
    said = capsys.readouterr().out
    assert "16 of 16" in said
    assert "All fit" not in said


def start(folder: Path, conduct: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    (folder / "run.py").write_text(STAND_IN)
    (folder / "conduct.json").write_text(json.dumps(conduct))
    script = (
        "import sys; from launch import sweep; from launch.sweep_runs import scheduler; scheduler.POLL_S = 0.01;"
        f"sys.exit(sweep.main({command(folder, *arguments)}, (sys.executable, {str(folder / 'run.py')!r})))"
    )
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


def wait_for_call(process: subprocess.Popen[str], folder: Path, *expected: str) -> None:
    while not (folder / "s" / "calls").exists() or calls(folder) != list(expected):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)  # another process writes the file


def test_no_cell_is_run_twice_over_kill_9_and_sigterm(sweeping: Callable[..., int], tmp_path: Path) -> None:
    """Nor does the running one outlive the sweep."""
    process = start(tmp_path, {"r2": {"sleep": 600}}, "ranks=[1,2,4]")
    wait_for_call(process, tmp_path, "r1", "r2")
    process.kill()
    process.wait()
    assert [status for status, _ in standing(tmp_path).values()] == ["completed", "running", "pending"]
    process = start(tmp_path, {"r2": {"sleep": 600}}, "ranks=[1,2,4]")
    wait_for_call(process, tmp_path, "r1", "r2", "r2")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert standing(tmp_path)["r2"] == ("interrupted", "SIGTERM")
    assert standing(tmp_path)["r4"] == ("pending", None)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path / "run.py") in (p.info["cmdline"] or ())]
    assert sweeping("ranks=[1,2,4]") == 0
    assert calls(tmp_path) == ["r1", "r2", "r2", "r2", "r4"]


def test_a_cell_at_work_in_another_process_is_waited_for(sweeping: Callable[..., int], tmp_path: Path) -> None:
    """As after a sweep was killed, whose run is still saving its work."""
    descriptor = lock(tmp_path / "s" / "r1")
    assert descriptor is not None
    (tmp_path / "s" / "calls").touch()
    (tmp_path / "s" / "sweep.json").write_text('{"cells": []}')
    release = threading.Timer(0.3, os.close, [descriptor])
    release.start()
    assert sweeping("ranks=[1,2]") == 0
    assert not release.is_alive()
    assert calls(tmp_path) == ["r1", "r2"]


CARDS = [Card(str(index), "NVIDIA A40", 45 * GIB, None) for index in range(4)]
FOUR = replace(with_cards(CARDS, tuple(range(16))), host_memory=256 * GIB)


@pytest.fixture
def four_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "detect", lambda _: FOUR)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def planned(folder: Path, *arguments: str) -> tuple[list[Plan], list[Lane], Scheduler]:
    """The plans of a sweep's cells, its lanes, and its scheduler before it starts."""
    grid = read_grid(["conf=r8_instruct", f"run.folder={folder}", "sweep.name=s", *arguments])
    (folder / "s").mkdir()
    lanes, plans = plan_lanes(grid, machines_of(grid), RUN)
    return list(plans.values()), lanes, Scheduler(grid, plans, lanes, Console(quiet=True))


@pytest.mark.usefixtures("four_cards")
def test_cells_side_by_side_are_planned_on_the_card_they_get(tmp_path: Path) -> None:
    plans, _, _ = planned(tmp_path, "seeds=[0,1,2,3,4]")
    alone = make_plan(plans[0].asked, FOUR)
    assert [plan.machine.gpus for plan in plans] == [1] * 5
    assert [card.index for plan in plans for card in plan.machine.cards] == ["0", "1", "2", "3", "0"]
    assert plans[0].estimate
    assert alone.estimate
    assert plans[0].estimate.update_s > 1.5 * alone.estimate.update_s


@pytest.mark.usefixtures("four_cards")
def test_a_sweep_of_several_lanes_takes_the_hours_it_was_given(tmp_path: Path) -> None:
    seeds = f"seeds={list(range(9))}".replace(" ", "")
    plans, lanes, waiting = planned(tmp_path, seeds, "sweep.hours=9")
    assert {plan.config.budget.seconds for plan in plans} == {3 * 3600}
    assert waiting.share(lanes[0], lanes[0].cells[0]) == 3 * 3600
    assert waiting.left() == 9 * 3600


@pytest.mark.usefixtures("four_cards")
def test_the_plan_of_a_sweep_says_how_long_its_lanes_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["conf=r8_instruct", "seeds=[0,1,2,3,4,5,6,7]", f"run.folder={tmp_path}", "plan=true"]
    assert main([*arguments, "sweep.hours=8"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(part in said for part in ("8 cells", "A40", "32 h", "4 at a time: 8 h"))


@pytest.mark.usefixtures("four_cards")
def test_mps_is_refused_before_a_cell_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["conf=r8_instruct", "seeds=[0,1]", f"run.folder={tmp_path}", "sweep.name=s", "run.mps=true"]
    assert main(asked) == 2
    assert "2 runs at a time" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()

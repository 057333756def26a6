"""Sweeps whose cells are carried out by a stand-in for `launch/run.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from conf.devices import devices
from conf.load import dump, load
from launch import sweep
from launch.cells import read_grid
from launch.lanes import Lane, lanes
from launch.machine import GIB, Machine
from launch.plan import make_plan
from launch.sweep import main

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
    after = {"pass@1": 0.5, "ci95": [0.4, 0.6], "problems": 10, "n": 1}
    summary = {"status": status, "reason": reason, "updates": 1, "eval": {"base": after, "final": after}}
    (folder / "summary.json").write_text(json.dumps(summary))
    sys.exit(code)

signal.signal(signal.SIGTERM, lambda *_: end(143, "interrupted", "SIGTERM"))
(folder / "spent.json").write_text(json.dumps({"spent_s": conduct.get("spent", 60.0)}))
for share in (0.45, 0.55):
    row = {"update": 1, "budget/spent_s": share, "budget/left_s": 1 - share}
    row["reward/accuracy"] = conduct.get("accuracy", 0.5)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
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
    monkeypatch.setattr(sweep, "POLL_S", 0.01)
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
    assert "lowest–highest" in shown
    assert sweeping("ranks=[8,64]", "seeds=[0,1]") == 0
    assert len(calls(tmp_path)) == 4


def test_a_finished_sweep_does_not_fail_for_its_report(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping("ranks=[8]") == 0
    (cell,) = read_grid(command(tmp_path, "ranks=[8]")).cells
    cell.config.model.dtype = "float32"
    (tmp_path / "s" / "r8" / "config.yaml").write_text(dump(cell.config))
    (tmp_path / "s" / "r8" / "metrics.jsonl").write_text('{"update": 1, "reward/accuracy": "high"}\n')
    assert sweeping("ranks=[8]") == 0
    assert "none (TypeError" in capsys.readouterr().out


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


def test_a_shared_budget_is_split_over_what_is_left(sweeping: Callable[..., int], tmp_path: Path) -> None:
    assert sweeping("ranks=[1,2,4]", "sweep.minutes=9", r1={"spent": 60.0}, r2={"spent": 240.0}) == 0
    given = [float(line.split()[1]) for line in (tmp_path / "s" / "calls").read_text().splitlines()]
    assert given == [3.0, 4.0, 4.0]


def test_lanes_work_side_by_side_on_cards_of_their_own(
    sweeping: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(sweep, "lanes", lambda *given: [Lane(cores, card, given[2]) for card in ("3", "5")])
    assert sweeping("ranks=[1,2,4]", r1={"beside": "r2"}) == 0
    assert sorted((tmp_path / "s" / "calls").read_text().splitlines()) == ["r1 3", "r2 5", "r4 3"]


def test_a_hopeless_cell_is_stopped_early_for_good(sweeping: Callable[..., int], tmp_path: Path) -> None:
    conduct = {"r2": {"accuracy": 0.1, "sleep": 60}, "r4": {"accuracy": 0.3}}
    assert sweeping("ranks=[1,2,4]", "sweep.stop_below=0.5", **conduct) == 0
    assert {cell: status for cell, (status, _) in standing(tmp_path).items()} == {
        "r1": "completed",
        "r2": "stopped_early",
        "r4": "completed",
    }
    assert "0.100 half-way, where the best cell had 0.500" in str(standing(tmp_path)["r2"][1])
    sweeping("ranks=[1,2,4]", "sweep.stop_below=0.5")
    assert len(calls(tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ranks=[8,1000]"], "lora.rank=1000"),
        (["ranks=[8]", "learner.ranks=[1,1000]"], "learner.ranks=1000: too many"),
        (["ranks=[8]", "device=A40"], "no A40"),
        (["models=[/no/such/folder]"], "no such folder"),
    ],
)
def test_what_no_cell_can_do_is_refused_before_the_first(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        a for a in command(tmp_path) if not any(a.startswith("device") for _ in arguments if "A40" in str(arguments))
    ]
    assert main([*given, *arguments], ("false",)) == 2
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
    assert "was begun with lora.alpha=3" in capsys.readouterr().err


def test_a_sweep_whose_folder_is_a_file_is_refused(
    sweeping: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s").touch()
    assert sweeping("ranks=[8]") == 2
    assert "s cannot be made or written to (File exists)" in capsys.readouterr().err


def start(folder: Path, conduct: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    (folder / "run.py").write_text(STAND_IN)
    (folder / "conduct.json").write_text(json.dumps(conduct))
    script = (
        "import sys; from launch import sweep; sweep.POLL_S = 0.01;"
        f"sys.exit(sweep.main({command(folder, *arguments)}, (sys.executable, {str(folder / 'run.py')!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, env=environment)


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


def test_lanes_are_as_many_as_the_machine_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    a40, cores = devices()["A40"], tuple(range(32))
    cards = Machine("A40", cores, 128 * GIB, 4, int(a40.memory_gib * GIB), a40.bandwidth_gbs * 1e9, a40.rates)
    laptop = Machine("a laptop", (0, 1), 16 * GIB, 0, 0, 10e9, {"bfloat16": 0.3e12})
    server = replace(laptop, cores=cores, host_memory=128 * GIB)
    small, large, ranks = load(["conf=quickstart"]), load(["conf=r256_instruct"]), load(["conf=quickstart"])
    small.model.dtype = ranks.model.dtype = "bfloat16"
    ranks.learner.ranks = 2

    def count(machine: Machine, *configs: Any) -> int:
        return len(lanes(configs, [make_plan(config, machine) for config in configs]))

    assert count(cards, *[large] * 9) == 4
    assert count(cards, *[large] * 3) == 3
    assert count(replace(cards, host_memory=20 * GIB), *[large] * 9) == 2
    assert count(replace(cards, gpu_memory=15 * GIB), *[large] * 9) == 1
    assert count(cards, small, ranks) == 1
    assert count(laptop, *[small] * 9) == 1
    assert count(server, *[small] * 9) == 4
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert count(cards, *[large] * 9) == 1

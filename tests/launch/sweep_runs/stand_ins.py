"""Stand-ins for the programs that a sweep starts."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from microbudget_rl.conf.parsing import FORMAT
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.sweep_runs.jobs import Grid

PROGRAM = r"""
import hashlib, json, os, pathlib, signal, sys, time
program = pathlib.Path(sys.argv[0]).stem
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given.get("adapter") or f"{given['run.folder']}/{given['run.name']}")
name = {"run": "", "evaluate": "evaluate-"}[program] + folder.name
calls, conduct = folder.parent / "calls", json.loads((folder.parent.parent / "conduct.json").read_text()).get(name, {})
with calls.open("a") as lines:
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    print(name, given["run.seed"] if program == "evaluate" else given.get("budget.minutes", card), file=lines)
if conduct.get("signal"):
    os.kill(os.getpid(), conduct["signal"])  # before there is a handler
signal.signal(signal.SIGTERM, lambda *_: end(143, "interrupted", "SIGTERM") if program == "run" else sys.exit(143))
scores = {"pass@1": 0.5, "ci95": [0.4, 0.6], "problems": 10, "n": 1, "mean_length": 8.0, "truncated": 0.0}

def end(code, status, reason="anew" if "run.overwrite" in given else "as told"):
    summary = {"status": status, "reason": reason, "updates": 1, "eval": {"base": scores, "final": scores}}
    (folder / "summary.json").write_text(json.dumps(summary))
    if conduct.get("checkpoint", True) and not (folder / "checkpoints").exists():
        adapter = folder / "checkpoints" / "update-000001" / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_text(str(folder))
        (folder / "checkpoints" / "latest").symlink_to("update-000001")
    sys.exit(code)

if program == "run":
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spent").write_text(json.dumps({"spent_s": conduct.get("spent", 60.0)}))
    (folder / "spent").rename(folder / "spent.json")  # at once, as a run does
    (folder / "metrics.jsonl").write_text(json.dumps({"update": 1, "reward/accuracy": 0.5}) + "\n")
time.sleep(conduct.get("sleep", 0))
while conduct.get("beside", "") not in calls.read_text():
    time.sleep(0.01)
code, status = conduct.get("end", [0, "completed"])
if conduct.get("code"):
    sys.exit(print(f"{program}.py: no such thing") or conduct["code"])
if program == "run":
    end(code, status)
if program == "evaluate":
    scores["n"], run = int(given["n"]), given.get("adapter")
    benchmarks = [pathlib.Path(each.removeprefix("file:")).stem for each in json.loads(given["benchmarks"])]
    made = {"model": "m", "dtype": "float32", "temperature": 1.0, "top_p": 1.0, "max_response_tokens": 8}
    made["seed"] = int(given["run.seed"])
    if run:
        weights = folder / "checkpoints" / "latest" / "adapter" / "adapter_model.safetensors"
        made |= {"adapter": run, "adapter_digest": hashlib.blake2b(weights.read_bytes()).hexdigest()}
    result = {"n": scores["n"], "limit": json.loads(given["limit"]), "base": scores, "adapter": scores if run else None}
    results = [{"name": each} | result for each in benchmarks]
    document = {"format": FORMAT, "status": "completed", "protocol": made, "benchmarks": results, "given": given}
    document["fresh"] = not (folder / "evaluation").exists()
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(document))
"""


def command(folder: Path, *arguments: str) -> list[str]:
    given = {argument.partition("=")[0] for argument in arguments}
    usual = {"sweep.name": "s", "device": "cpu"}
    kept = [f"{key}={value}" for key, value in usual.items() if key not in given]
    return ["conf=quickstart", f"run.folder={folder}", *kept, *arguments]


def write_programs(folder: Path) -> None:
    for name in ("run", "evaluate"):
        (folder / f"{name}.py").write_text(f"FORMAT = {FORMAT}\n{PROGRAM}")


def calls(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "s" / "calls").read_text().splitlines()]


def statuses(folder: Path) -> dict[str, tuple[str, str | None]]:
    runs = json.loads((folder / "s" / "sweep.json").read_text())["runs"]
    return {run["name"]: (run["status"], run["reason"]) for run in runs}


def two_gpus(machine: Machine, _: Grid) -> list[Machine]:
    return [replace(machine, cards=(Gpu(index, "NVIDIA A40", 0, None),)) for index in ("3", "5")]


def start(folder: Path, conduct: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    write_programs(folder)
    (folder / "conduct.json").write_text(json.dumps(conduct))
    script = (
        "import sys; from pathlib import Path;"
        "from microbudget_rl.launch import sweep; from microbudget_rl.launch.sweep_runs import scheduler;"
        f"scheduler.POLL_S, scheduler.PROGRAMS = 0.01, Path({str(folder)!r});"
        "sweep.prepare = lambda *_: None;"
        f"sys.exit(sweep.main({command(folder, *arguments)}))"
    )
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


def wait_for_call(process: subprocess.Popen[str], folder: Path, *expected: str) -> None:
    while not (folder / "s" / "calls").exists() or calls(folder) != list(expected):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)  # another process writes the file

"""Stand-ins for the programs that a sweep starts."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from launch.hardware.machine import Machine
from launch.plan.plan import Plan
from launch.sweep_runs.grid import Grid
from launch.sweep_runs.lanes import Lane, Programs, plan_lanes

STAND_IN = r"""
import json, os, pathlib, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given["run.folder"], given["run.name"])
folder.mkdir(parents=True, exist_ok=True)
with (folder.parent / "calls").open("a") as calls:
    budget, card = given.get("budget.minutes", ""), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    calls.write(f"{given['run.name']} {budget or card}\n")
with (folder.parent / "given").open("a") as arguments:
    print(*sys.argv, file=arguments)
conduct = json.loads((folder.parent.parent / "conduct.json").read_text()).get(given["run.name"], {})
if conduct.get("signal"):
    os.kill(os.getpid(), conduct["signal"])  # before there is a handler

def end(code, status, reason="as told"):
    after = {"pass@1": 0.5, "ci95": [0.4, 0.6], "problems": 10, "n": 1, "mean_length": 8.0, "truncated": 0.0}
    summary = {"status": status, "reason": reason, "updates": 1, "eval": {"base": after, "final": after}}
    (folder / "summary.json").write_text(json.dumps(summary))
    if conduct.get("checkpoint", True) and not (folder / "checkpoints").exists():
        adapter = folder / "checkpoints" / "update-000001" / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_text(str(folder))
        (folder / "checkpoints" / "latest").symlink_to("update-000001")
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

EXAMINER = r"""
import hashlib, json, pathlib, signal, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
run = given.get("adapter")
home = pathlib.Path(run or f"{given['run.folder']}/{given['run.name']}")
conduct = json.loads((home.parent.parent / "conduct.json").read_text()).get(f"exam-{home.name}", {})
with (home.parent / "calls").open("a") as calls:
    calls.write(f"exam-{home.name} {given['run.seed']}\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
time.sleep(conduct.get("sleep", 0))
while conduct.get("beside", "") not in (home.parent / "calls").read_text():
    time.sleep(0.01)
if conduct.get("code"):
    sys.exit(print("evaluate.py: no such thing") or conduct["code"])
names = [pathlib.Path(each.removeprefix("file:")).stem for each in json.loads(given["benchmarks"])]
scores = {"pass@1": 0.5, "ci95": [0.4, 0.6], "problems": 10, "n": int(given["n"]), "mean_length": 8.0, "truncated": 0.0}
policies = {"base": scores, **({"adapter": scores} if run else {})}
made = {"model": "m", "dtype": "float32", "temperature": 1.0, "top_p": 1.0, "max_response_tokens": 8}
made["seed"] = int(given["run.seed"])
if run:
    weights = home / "checkpoints" / "latest" / "adapter" / "adapter_model.safetensors"
    made |= {"adapter": run, "adapter_digest": hashlib.blake2b(weights.read_bytes()).hexdigest()}
results = [{"name": name, "n": scores["n"], "limit": json.loads(given["limit"]), **policies} for name in names]
document = {"format": 1, "status": "completed", "protocol": made, "benchmarks": results, "given": given}
(home / "evaluation").mkdir(parents=True, exist_ok=True)
(home / "evaluation" / "evaluation.json").write_text(json.dumps(document))
"""


DOCTOR = r"""
import json, os, pathlib, sys
sys.path.insert(0, os.getcwd())
from actors.evaluation.statistics import Mean
from conf.load import load
from launch.plan.signal import Signal, keep_signal
from launch.plan.time import Workload
config = load([each for each in sys.argv[1:] if each != "measure=signal"])
folder = pathlib.Path(config.run.folder)
with (folder / "calls").open("a") as calls:
    calls.write(f"signal-{config.run.name} {config.budget.minutes}\n")
conduct = json.loads((folder.parent / "conduct.json").read_text()).get("doctor", {})
if conduct.get("fails"):
    sys.exit(print("bad measuring: no engine") or 1)
shares, warning = {"pass@1": 0.25, "pass@n": 0.75, "useful": 0.5}, conduct.get("warning", "")
figures = {name: Mean(share, (share - 0.1, share + 0.1)) for name, share in shares.items()}
answer = ("too hard", warning) if warning else ("worth it",)
keep_signal(Signal(150, 16, figures, Workload(66, 8, 8, 0.5, 0.5), *answer), config, folder)
sys.exit(bool(warning))
"""


def command(folder: Path, *arguments: str) -> list[str]:
    given = {argument.partition("=")[0] for argument in arguments}
    usual = {"sweep.name": "s", "device": "cpu"}
    kept = [f"{key}={value}" for key, value in usual.items() if key not in given]
    return ["conf=quickstart", f"run.folder={folder}", *kept, *arguments]


def write_programs(folder: Path) -> None:
    (folder / "run.py").write_text(STAND_IN)
    (folder / "evaluate.py").write_text(EXAMINER)
    (folder / "doctor.py").write_text(DOCTOR)


def programs(folder: Path) -> Programs:
    return {name: (sys.executable, str(folder / f"{name}.py")) for name in ("run", "evaluate", "doctor")}


def calls(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "s" / "calls").read_text().splitlines()]


def statuses(folder: Path) -> dict[str, tuple[str, str | None]]:
    runs = json.loads((folder / "s" / "sweep.json").read_text())["runs"]
    return {run["name"]: (run["status"], run["reason"]) for run in runs}


def two_lanes(grid: Grid, machines: list[Machine], programs: Programs) -> tuple[list[Lane], dict[str, Plan]]:
    plans = plan_lanes(grid, machines, programs)[1]
    return [Lane(grid.runs[n::2], machines[0], gpu, programs) for n, gpu in enumerate(("3", "5"))], plans


def start(folder: Path, conduct: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    write_programs(folder)
    (folder / "conduct.json").write_text(json.dumps(conduct))
    script = (
        "import sys; from launch import sweep; from launch.sweep_runs import scheduler; scheduler.POLL_S = 0.01;"
        "sweep.prepare = lambda *_: None;"
        f"sys.exit(sweep.main({command(folder, *arguments)}, {programs(folder)}))"
    )
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


def wait_for_call(process: subprocess.Popen[str], folder: Path, *expected: str) -> None:
    while not (folder / "s" / "calls").exists() or calls(folder) != list(expected):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)  # another process writes the file

"""A run that a Python program with a Ray of its own starts, interrupts and resumes, and a reward that only it has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY

PROGRAM = """
import json, os, signal, sys, threading, time
import ray
import microbudget_rl as mb

BONUS = 0.25

def score(prompts, completions, answer, **columns):
    assert len(answer) == len(prompts) == len(completions)
    return [BONUS + (right in text) for right, text in zip(answer, completions)]

def interrupt():
    while not os.path.exists("runs/mine/metrics.jsonl"):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False)
    mine = ray.put("mine")
    rows = [{"problem": f"{a} + {b} =", "answer": "7"} for a in range(9) for b in range(9)]
    settings = json.loads(sys.argv[1])
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        mb.train("quickstart", problems=rows, reward=[score], minutes=30, settings=settings)
    except KeyboardInterrupt:
        run = mb.open("runs/mine")
    first, rows = run.summary, run.metrics
    run.resume(minutes=20, settings={"budget.updates": first.updates + 1})
    rewards = [row["reward/score"] for row in run.metrics]
    facts = {"first": first.status, "status": run.summary.status, "more": len(run.metrics) - len(rows)}
    facts |= {"kept": str(run.metrics[: len(rows)]) == str(rows), "rewards": rewards, "adapter": str(run.adapter)}
    print("FACTS", json.dumps(facts | {"own": ray.get(mine)}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_program_trains_with_its_own_function_and_resumes(boxing_model: Path, tmp_path: Path):
    own = {"run.name": "mine", "run.overwrite": True, "model.path": str(boxing_model), "eval.n": 1}
    settings = {**TINY, **own, "data.template": "{problem}"}  # values, not words of a command line
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, str(file), json.dumps(settings)], cwd=tmp_path, capture_output=True, text=True, timeout=800
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    facts = json.loads(ended.stdout.rpartition("FACTS ")[2])
    assert (facts["first"], facts["status"]) == ("interrupted", "completed"), said
    assert facts["kept"], "a resume does not begin again, whatever run.overwrite was"
    assert facts["more"] == 1
    assert all(0.25 <= reward <= 1.25 for reward in facts["rewards"])
    assert (Path(facts["adapter"]) / "adapter_config.json").is_file()
    assert facts["own"] == "mine"

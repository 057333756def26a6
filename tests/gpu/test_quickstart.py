"""The quickstart on a GPU, shortened."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.launch.hardware.machine import GIB, detect
from tests.gpu.conftest import memory_used
from tests.json_lines import read_rows

ROOT = Path(__file__).parents[2]
MINUTES = 8


def quickstart(folder: Path, *settings: str) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Run the quickstart in a folder, without crashes; return what it says, its summary and its metrics."""
    arguments = [f"budget.minutes={MINUTES}", f"run.folder={folder}", "dashboard.port=0", *settings]
    command = [sys.executable, str(ROOT / "launch" / "run.py"), "conf=quickstart", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((folder / "quickstart" / "summary.json").read_text())
    rows = read_rows(folder / "quickstart" / "metrics.jsonl")
    print(f"{len(rows)} updates in {summary['spent_s']:.0f} s: {done.stdout.splitlines()[-1]}")
    events = [
        each["event"] for each in summary["events"] if each["event"].endswith((EventKind.DIED, EventKind.FALLBACK))
    ]
    assert all("MPS" in event for event in events)  # it may be forbidden, as in many rented containers
    assert all(row["adapter_check/disagreement"] < 0.1 for row in rows)
    return done.stdout, summary, rows


@pytest.mark.timeout(120 + 60 * MINUTES)
def test_quickstart_learns_and_frees_the_gpu(tmp_path: Path):
    before = memory_used()
    said, summary, rows = quickstart(tmp_path)
    assert "of a GPU" in said
    assert summary["status"] in ("budget_exhausted", "completed")  # all problems may be learned
    assert summary["spent_s"] <= 60 * MINUTES
    assert len(rows) >= 5
    assert max(row["staleness/max"] for row in rows) <= 1
    assert summary["eval"]["final"]["pass@1"] > summary["eval"]["base"]["pass@1"]
    while memory_used() > before + GIB / 4:
        time.sleep(0.5)


@pytest.mark.timeout(60 + 60 * MINUTES)
def test_two_gpus_hold_an_engine_and_a_learner_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The learner's processes exchange gradients through NCCL."""
    two = detect().cards[:2]
    if len(two) < 2:
        pytest.skip("there is one GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpu.index for gpu in two))
    _, summary, rows = quickstart(tmp_path, "learner.world_size=2", "rollout.actors=2", "budget.updates=3")
    assert (summary["status"], len(rows)) == ("completed", 3)

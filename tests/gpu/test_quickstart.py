"""The quickstart on a GPU, shortened."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.hardware.machine import GIB
from tests.gpu.conftest import memory_used

ROOT = Path(__file__).parents[2]
MINUTES = 8


@pytest.mark.timeout(120 + 60 * MINUTES)
def test_quickstart_learns_and_frees_the_gpu(tmp_path: Path) -> None:
    before = memory_used()
    arguments = [f"budget.minutes={MINUTES}", f"run.folder={tmp_path}", "dashboard.port=0"]
    command = [sys.executable, str(ROOT / "launch" / "run.py"), "conf=quickstart", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of a GPU" in done.stdout
    summary = json.loads((tmp_path / "quickstart" / "summary.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "quickstart" / "metrics.jsonl").read_text().splitlines()]
    print(f"{len(rows)} updates in {summary['spent_s']:.0f} s: {done.stdout.splitlines()[-1]}")
    assert summary["status"] in ("budget_exhausted", "completed")  # all problems may be learned
    assert summary["spent_s"] <= 60 * MINUTES
    assert not [event for event in summary["events"] if "died" in event["event"]]
    assert len(rows) >= 5
    assert all(row["adapter_check/disagreement"] < 0.1 for row in rows)
    assert max(row["staleness/max"] for row in rows) <= 1
    assert summary["eval"]["final"]["pass@1"] > summary["eval"]["base"]["pass@1"]
    deadline = time.monotonic() + 30
    while memory_used() > before + GIB / 4 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert memory_used() < before + GIB / 4

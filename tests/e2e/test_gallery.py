"""A task of the gallery, as its page says."""

import subprocess
import sys
from pathlib import Path

import pytest

from microbudget_rl.launch.reporting.history import read_run
from microbudget_rl.launch.reporting.run_conclusion import conclude, effect, reward_effect
from tests.conftest import ROOT

RECIPE = "docs/start/gallery/extraction.yaml"
UPDATES = 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_extraction_is_rewarded_and_reported_by_its_own_function(tmp_path: Path) -> None:
    settings = (f"run.folder={tmp_path}", "run.name=one", f"budget.updates={UPDATES}", "budget.minutes=25", "eval.n=1")
    command = [sys.executable, "launch/run.py", f"conf={RECIPE}", "dashboard.port=0", *settings]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run = read_run(tmp_path / "one")
    found = reward_effect(run.samples["base"], run.samples["final"])
    assert found
    assert run.summary.updates == UPDATES
    assert 0 < found.problems <= run.config["eval.problems"]
    assert all(row.reward in (0.0, 0.25, 0.5, 0.75, 1.0) for row in (*run.samples["base"], *run.samples["final"]))
    assert "held-out reward" in conclude(run, effect(run))
    assert all("reward/fields" in row.metrics for row in run.rows)

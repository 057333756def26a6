"""A run whose machine is lost: killed, its folder deleted, and brought back from its remote checkpoints."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from microbudget_rl.actors.storage.remote import POINTER
from tests.faults.conftest import Run, begin, latest

__all__ = ["begin"]


@pytest.mark.slow
def test_run_goes_on_from_its_remote_checkpoints(begin: Callable[..., Run], tmp_path: Path):
    url, pointer = f"file://{tmp_path}/far", tmp_path / "far" / "far" / POINTER
    settings = (f"checkpoint.remote={url}", f"run.restore={url}", "budget.minutes=30", "budget.updates=150")
    lost = begin("far", *settings)
    lost.wait_until(lambda: pointer.exists() and '"latest"' in pointer.read_text(), "remote checkpoint")
    lost.end(signal.SIGKILL)
    assert 0 < latest(lost.folder) < 150
    shutil.rmtree(lost.folder)

    ended = begin("far", *settings).end()
    assert ended.code == 0, ended.output
    assert f"Restored {ended.folder}" in ended.output
    assert f"Remote checkpoints: {url}/far" in ended.output
    assert [row["update"] for row in ended.rows] == list(range(1, 151))
    assert ended.summary["updates"] == 150
    assert "warnings/remote checkpoints" not in ended.summary["ledger"]["counts"]
    copy = pointer.with_name(json.loads(pointer.read_text())["folder"])
    assert {"report.html", "summary.json", "metrics.jsonl", "config.yaml"} <= {path.name for path in copy.iterdir()}

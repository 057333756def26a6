"""A run whose machine is lost: killed, its folder deleted, and brought back from its remote checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from microbudget_rl.actors.storage.remote import POINTER
from tests.e2e.conftest import read_rows, read_summary


@pytest.mark.slow
def test_run_goes_on_from_its_remote_checkpoints(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    url = f"file://{tmp_path}/far"
    settings = (f"checkpoint.remote={url}", f"run.restore={url}", "budget.minutes=30", "budget.updates=150")
    folder = start.folder / "far"  # type: ignore[attr-defined]
    process = start("far", *settings)
    until = time.monotonic() + 400
    pointer = tmp_path / "far" / "far" / POINTER
    while time.monotonic() < until:
        if pointer.exists() and "latest" in json.loads(pointer.read_text())["links"]:
            break
        assert process.poll() is None
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    saved = int(json.loads(pointer.read_text())["links"]["latest"].removeprefix("update-"))
    time.sleep(15)  # Ray's processes end without their driver
    shutil.rmtree(folder)

    ended = start("far", *settings)
    said, _ = ended.communicate(timeout=450)
    assert ended.returncode == 0, said
    assert f"Restored {folder}" in said
    assert f"Remote checkpoints: {url}/far" in said
    assert [row["update"] for row in read_rows(folder)] == list(range(1, 151))
    summary = read_summary(folder)
    assert summary["updates"] == 150
    assert 0 < saved < 150
    assert "warnings/remote checkpoints" not in summary["ledger"]["counts"]
    copy = pointer.with_name(json.loads(pointer.read_text())["folder"])
    assert {"report.html", "summary.json", "metrics.jsonl", "config.yaml"} <= {path.name for path in copy.iterdir()}

"""A whole sweep with every real part."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import read_summary
from tests.json_lines import read_rows, write_rows

pytestmark = pytest.mark.slow


def test_killed_sweep_goes_on_without_work_done_twice(start: Callable[..., subprocess.Popen[str]]):
    folder: Path = start.folder / "ranks-swept"  # type: ignore[attr-defined]
    rows = ({"problem": f"{a} + 9 =", "answer": "7"} for a in range(6))
    benchmark = write_rows(folder.parent / "benchmark.jsonl", rows)
    evaluated = (f"benchmarks=[file:{benchmark}]", "n=2", "sweep.pass_at=[1,2]")
    settings = ("lora.rank=[4,8]", "budget.updates=4", "budget.minutes=10", *evaluated)
    first = start("ranks-swept", *settings, program="sweep")
    metrics = folder / "r4" / "metrics.jsonl"
    while len(read_rows(metrics)) < 2:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)  # another process writes the file
    first.kill()
    first.wait()
    again = start("ranks-swept", *settings, program="sweep")
    output, _ = again.communicate()
    assert again.returncode == 0, output
    for name in ("r4", "r8"):
        assert [row["update"] for row in read_rows(folder / name / "metrics.jsonl")] == [1, 2, 3, 4]
        assert read_summary(folder / name)["plasticity"]["rank"] == int(name[1:])
        assert f"{name}: completed" in output
    assert "held-out pass@1" in output
    record = json.loads((folder / "sweep.json").read_text())
    assert [(run["name"], run["status"]) for run in record["runs"]] == [("r4", "completed"), ("r8", "completed")]
    assert [entry["benchmarked"] for entry in record["runs"]] == ["completed", "completed"]
    assert [entry["status"] for entry in record["bases"]] == ["completed"]
    samples = [folder / name / "evaluation" / "samples" / "eval-base-benchmark.jsonl" for name in ("base", "r4", "r8")]
    assert (
        len({tuple(sorted(file.read_text().splitlines())) for file in samples}) == 1
    )  # sampled once, taken over twice
    assert len(samples[0].read_text().splitlines()) == 6 * 2
    assert "Resumed with" not in (folder / "r4.log").read_text()

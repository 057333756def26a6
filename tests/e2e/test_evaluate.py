"""A real evaluation of the tiny model with an adapter, killed in the middle and finished by the same command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_lines import read_rows, write_rows
from tests.trained_runs import save_adapter

pytestmark = pytest.mark.slow

N = 20
PROBLEMS = 20


def command(model: Path, folder: Path, std: float) -> list[str]:
    save_adapter(folder / "adapter", model, std)
    rows = ({"problem": f"{a} + 3 =", "answer": "7"} for a in range(PROBLEMS))
    data = write_rows(folder / "sums.jsonl", rows)
    return [
        sys.executable,
        str(ROOT / "launch" / "evaluate.py"),
        "conf=quickstart",
        f"run.folder={folder}",
        f"model.path={model}",
        f"adapter={folder / 'adapter'}",
        f"benchmarks=[file:{data}]",
        f"n={N}",
        "data.few_shot=[]",
        "data.system=null",
        "data.template='{problem}'",
        "rollout.max_prompt_tokens=32",
        "rollout.max_response_tokens=12",
        "rollout.max_concurrent_samples=8",
        "rollout.kv_cache_gib=1",
    ]


def test_evaluation_killed_in_the_middle_is_finished_by_the_same_command(boxing_model: Path, tmp_path: Path):
    asked = command(boxing_model, tmp_path, std=0.3)
    folder = tmp_path / "quickstart" / "evaluation"
    files = [folder / "samples" / f"eval-{policy}-sums.jsonl" for policy in ("base", "adapter")]

    def lines() -> list[str]:
        return [line for file in files if file.exists() for line in file.read_text().splitlines(keepends=True)]

    first = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while first.poll() is None and len(lines()) < N * PROBLEMS // 4:
        time.sleep(0.1)  # another process writes the files
    first.send_signal(signal.SIGKILL)
    output, _ = first.communicate()
    before = [line for line in lines() if line.endswith("\n")]
    assert 0 < len(before) < 2 * N * PROBLEMS, output

    second = subprocess.run(asked, capture_output=True, text=True, env={**os.environ, "COLUMNS": "160"})
    assert second.returncode == 0, second.stdout + second.stderr
    after = lines()
    assert set(before) <= set(after)
    for file in files:
        drawn = Counter((row["problem"], row["sample"]) for row in read_rows(file))
        assert set(drawn.values()) == {1}
        assert len(drawn) == N * PROBLEMS
    document = json.loads((folder / "evaluation.json").read_text())
    (benchmark,) = document["benchmarks"]
    assert document["status"] == "completed"
    assert 0 < benchmark["base"]["pass@1"] < benchmark["base"][f"pass@{N}"]
    difference = benchmark["adapter"]["pass@1"] - benchmark["base"]["pass@1"]
    assert benchmark["paired"]["difference"] == pytest.approx(difference)
    assert "sums: adapter minus base" in second.stdout


def test_adapter_without_an_effect_is_refused(boxing_model: Path, tmp_path: Path):
    asked = command(boxing_model, tmp_path, std=1e-9)
    ended = subprocess.run(asked, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert f"adapter={tmp_path / 'adapter'}" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "quickstart" / "evaluation" / "samples").exists()

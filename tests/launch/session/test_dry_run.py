from pathlib import Path

import pytest

from launch import run
from tests.trained_runs import write_trained


def test_dry_run_shows_settings_and_problems_and_starts_nothing(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trained(tmp_path / "runs" / "mine", tiny_model)  # for its data
    settings = ["data.problem_pattern=", "data.examples=[]", "data.system=null", "data.size=null", "eval.problems=5"]
    data = f"data.source=file:{tmp_path}/runs/sums.jsonl"
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    arguments = ["conf=quickstart", "run.name=new", f"model.path={tiny_model}", data, *settings]
    assert run.main([*arguments, "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "learning_rate: 0.0002" in said
    assert "35 problems to train on" in said
    assert "5 problems held out" in said
    assert said.count("<|im_end|>\n<|im_start|>assistant\n") == 4
    assert "tokens, gold answer " in said
    assert sorted(tmp_path.rglob("*")) == before
    assert run.main([*arguments, "dry_run=true", "data.template={problem"]) == 2

import json
from pathlib import Path

import pytest

from conf.errors import BadInput
from conf.load import dump, load
from conf.schema import Config
from launch.resume import open_folder


def begin(folder: Path, status: str | None, *settings: str) -> None:
    """Leave behind what a run of the quickstart with these settings would."""
    config = configure(folder, *settings)
    run = folder / config.run.name
    run.mkdir()
    (run / "config.yaml").write_text(dump(config))
    if status:
        (run / "summary.json").write_text(json.dumps({"status": status}))


def configure(folder: Path, *settings: str) -> Config:
    return load(["conf=quickstart", f"run.folder={folder}", *settings])


def test_new_run_gets_a_folder_of_its_name(tmp_path: Path) -> None:
    assert open_folder(configure(tmp_path, "run.name=mine")) == tmp_path / "mine"


@pytest.mark.parametrize("status", [None, "interrupted", "failed", "halted"])
def test_unfinished_run_may_go_on(tmp_path: Path, status: str | None) -> None:
    begin(tmp_path, status)
    assert open_folder(configure(tmp_path)) == tmp_path / "quickstart"


@pytest.mark.parametrize("status", ["completed", "budget_exhausted"])
def test_finished_run_is_refused_unless_it_may_be_overwritten(tmp_path: Path, status: str) -> None:
    begin(tmp_path, status)
    with pytest.raises(BadInput, match=f"is finished .{status}.: give run.overwrite=true"):
        open_folder(configure(tmp_path))
    assert open_folder(configure(tmp_path, "run.overwrite=true")) == tmp_path / "quickstart"


def test_budget_and_checkpoints_may_change_on_resume(tmp_path: Path) -> None:
    begin(tmp_path, "interrupted")
    open_folder(configure(tmp_path, "budget.minutes=20", "checkpoint.every=1", "dashboard.port=0"))


def test_what_is_learned_may_not_change_on_resume(tmp_path: Path) -> None:
    begin(tmp_path, "interrupted")
    with pytest.raises(BadInput) as caught:
        open_folder(configure(tmp_path, "lora.rank=8", "run.seed=3"))
    assert "lora.rank=32, not 8" in str(caught.value)
    assert "also changed: run.seed" in str(caught.value)

"""Runs and adapters of earlier versions are read under today's names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from actors.storage.run_record import RunRecord
from conf import departed
from conf.errors import BadInput
from conf.load import dump, load
from conf.schema import Config
from conf.settings import settings
from launch.plan.calibration import read_config
from launch.session.resume import check_settings


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Path]:
    """Write a run of a version with other names for a section, keys, values and metrics, and one more setting."""
    renamed = {"adapter_shape": "lora", "lora.r": "lora.rank", "learner.replace": "learner.refill"}
    monkeypatch.setattr(departed, "RENAMED", renamed)
    values = {
        "run.trackers": {"tb": "tensorboard", "gone": None},
        "model.path": {"builtin:*": "embedded:*"},
        "learner.gradient_checkpointing": {True: "on", False: "off"},
    }
    monkeypatch.setattr(departed, "VALUES", values)
    monkeypatch.setattr(departed, "DEPARTED", {"wonders.speed": 1.0})
    monkeypatch.setattr(
        departed,
        "METRICS",
        {"check/*": "canary/*", "time/check": "time/canary", "ledger/learner/check": "ledger/learner/canary"},
    )

    def write(speed: float) -> Path:
        record = yaml.safe_load(dump(load(["conf=quickstart", "lora.rank=4"])))
        record["adapter_shape"] = {**record.pop("lora"), "r": 4}
        del record["adapter_shape"]["rank"], record["learner"]["refill"]
        record["run"]["trackers"] = ["tb", "gone"]
        record["model"]["path"] = "builtin:smollm2-135m"
        record["learner"] |= {"replace": True, "gradient_checkpointing": True}
        record["wonders"] = {"speed": speed}
        folder = tmp_path / "quickstart"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(record))
        rows = [{"update": 1, "check/noise": 0.5, "time/check": 2.0, "time/checked": 3.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "ledger.json").write_text('{"seconds": {"learner": {"check": 2.0}}, "counts": {"tokens/useful": 3}}')
        return folder

    return write


def test_a_run_opens_under_todays_names(old_run: Callable[[float], Path]) -> None:
    folder = old_run(2.0)
    record = RunRecord(folder).config()
    assert (record["lora"]["rank"], record["run"]["trackers"]) == (4, ["tensorboard"])
    assert record["model"]["path"] == "embedded:smollm2-135m"
    assert record["learner"]["refill"] is True
    assert record["learner"]["gradient_checkpointing"] == "on"
    assert record["wonders"] == {"speed": 2.0}  # a report may show it
    (row,), ledger = RunRecord(folder).rows(), RunRecord(folder).ledger()
    assert row.content == {"update": 1, "canary/noise": 0.5, "time/canary": 2.0, "time/checked": 3.0}
    assert ledger is not None
    assert ledger.content == {"seconds": {"learner": {"canary": 2.0}}, "counts": {"tokens/useful": 3}}
    assert load([f"adapter={folder}/checkpoints"]).lora.rank == 4
    assert read_config(RunRecord(folder)).lora.rank == 4
    assert departed.key_today("adapter_shape.alpha") == "lora.alpha"


def test_a_removed_setting_at_its_default_is_no_change(old_run: Callable[[float], Path]) -> None:
    folder = old_run(1.0)
    same = ("lora.rank=4", "learner.refill=true", "learner.gradient_checkpointing=on")
    config = load(["conf=quickstart", *same, f"run.folder={folder.parent}"])
    check_settings(config, RunRecord(folder))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("speed: 1.0", "speed: 2.0"))
    with pytest.raises(BadInput, match=r"wonders\.speed"):
        check_settings(config, RunRecord(folder))


def test_an_old_key_is_answered_with_todays(old_run: Callable[[float], Path]) -> None:
    with pytest.raises(BadInput, match=r"learner\.replace: .*learner\.refill") as caught:
        load(["conf=quickstart", "learner.replace=true", "adapter_shape.alpha=8"])
    assert "lora.alpha" in str(caught.value)


def test_todays_names_are_settings() -> None:
    known = {item.path for item in settings(Config)}
    sections = {path.rpartition(".")[0] for path in known}
    assert not known & {*departed.RENAMED, *departed.DEPARTED}
    assert {*departed.RENAMED.values(), *departed.VALUES} <= known | sections

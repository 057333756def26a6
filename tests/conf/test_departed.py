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
    renamed = {"adapter_shape": "lora", "lora.r": "lora.rank", "learner.replace": "learner.dynamic_sampling"}
    monkeypatch.setattr(departed, "RENAMED", renamed)
    values = {
        "run.report_to": {"tb": "tensorboard", "gone": None},
        "model.path": {"builtin:*": "bundled:*"},
        "learner.gradient_checkpointing": {True: "on", False: "off"},
    }
    monkeypatch.setattr(departed, "VALUES", values)
    monkeypatch.setattr(departed, "DEPARTED", {"wonders.speed": 1.0})
    monkeypatch.setattr(departed, "metric_today", departed.metric_today.__wrapped__)
    monkeypatch.setattr(
        departed,
        "METRICS",
        {
            "check/*": "adapter_check/*",
            "time/check": "time/adapter_check",
            "ledger/learner/check": "ledger/learner/adapter_check",
        },
    )

    def write(speed: float) -> Path:
        record = yaml.safe_load(dump(load(["conf=quickstart", "lora.rank=4"])))
        record["adapter_shape"] = {**record.pop("lora"), "r": 4}
        del record["adapter_shape"]["rank"], record["learner"]["dynamic_sampling"]
        record["run"]["report_to"] = ["tb", "gone"]
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
    assert (record["lora"]["rank"], record["run"]["report_to"]) == (4, ["tensorboard"])
    assert record["model"]["path"] == "bundled:smollm2-135m"
    assert record["learner"]["dynamic_sampling"] is True
    assert record["learner"]["gradient_checkpointing"] == "on"
    assert record["wonders"] == {"speed": 2.0}  # a report may show it
    (row,), ledger = RunRecord(folder).rows(), RunRecord(folder).ledger()
    assert row.content == {"update": 1, "adapter_check/noise": 0.5, "time/adapter_check": 2.0, "time/checked": 3.0}
    assert ledger is not None
    assert ledger.content == {"seconds": {"learner": {"adapter_check": 2.0}}, "counts": {"tokens/useful": 3}}
    assert load([f"adapter={folder}/checkpoints"]).lora.rank == 4
    assert read_config(RunRecord(folder)).lora.rank == 4
    assert departed.key_today("adapter_shape.alpha") == "lora.alpha"


def test_a_removed_setting_at_its_default_is_no_change(old_run: Callable[[float], Path]) -> None:
    folder = old_run(1.0)
    same = ("lora.rank=4", "learner.dynamic_sampling=true", "learner.gradient_checkpointing=on")
    config = load(["conf=quickstart", *same, f"run.folder={folder.parent}"])
    check_settings(config, RunRecord(folder))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("speed: 1.0", "speed: 2.0"))
    with pytest.raises(BadInput, match=r"wonders\.speed"):
        check_settings(config, RunRecord(folder))


def test_an_old_key_is_answered_with_todays(old_run: Callable[[float], Path]) -> None:
    with pytest.raises(BadInput, match=r"learner\.replace: .*learner\.dynamic_sampling") as caught:
        load(["conf=quickstart", "learner.replace=true", "adapter_shape.alpha=8"])
    assert "lora.alpha" in str(caught.value)


def test_todays_names_are_settings() -> None:
    known = {item.path for item in settings(Config)}
    sections = {path.rpartition(".")[0] for path in known}
    assert not known & {*departed.RENAMED, *departed.DEPARTED}
    assert {*departed.RENAMED.values(), *departed.VALUES} <= known | sections


def test_every_renamed_setting_exists_today() -> None:
    """Runs of the first published version: their keys, values and metrics."""
    today = {item.path for item in settings(Config)} | {"adapter_check"}
    assert {*departed.RENAMED.values(), *departed.VALUES} <= today
    old = {"run": {"mps": True, "trackers": ["tensorboard", "mlflow"]}, "model": {"path": "embedded:smollm2-135m"}}
    old |= {"lora": {"alpha_rule": "proportional"}, "canary": {"problems": 2}}
    assert departed.translated(old) == {
        "run": {"nvidia_mps": "on", "report_to": ["tensorboard"]},
        "model": {"path": "bundled:smollm2-135m"},
        "lora": {"alpha_scaling": "linear"},
        "adapter_check": {"problems": 2},
    }
    row = {"completion/mean_length": 8.0, "mismatch/effective_share": 0.9, "time/canary": 1.0}
    assert [*departed.metrics_today(row)] == ["response/mean_length", "mismatch/ess", "time/adapter_check"]


def test_an_entry_under_its_old_and_its_new_name_adds_up() -> None:
    ledger = {
        "seconds": {"learner": {"canary": 2.0, "adapter_check": 3.0, "update": 1.0}},
        "counts": {"mirror/copies": 1, "remote/copies": 4, "tokens/useful": 7},
    }
    assert departed.ledger_today(ledger) == {
        "seconds": {"learner": {"adapter_check": 5.0, "update": 1.0}},
        "counts": {"remote/copies": 5, "tokens/useful": 7},
    }

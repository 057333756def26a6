"""Runs and adapters of earlier versions are read under today's names."""

import json
from pathlib import Path

import pytest
import yaml

from actors.storage.documents import EventKind
from actors.storage.run_record import RunRecord
from conf import departed
from conf.errors import BadInput
from conf.load import dump, load
from conf.schema import Config
from conf.settings import settings
from launch.plan.calibration import read_config
from launch.session.resume import check_settings


def write_old_run(folder: Path, bandwidth: float = 50.0) -> Path:
    """Write a run of the first published version, with its names of a section, keys, values and metrics, and a setting
    that is gone.
    """
    record = yaml.safe_load(dump(load(["conf=quickstart", "lora.rank=4"])))
    record["canary"] = record.pop("adapter_check")
    record["learner"]["refill"] = not record["learner"].pop("dynamic_sampling")
    record["lora"]["alpha_rule"] = "fixed"
    del record["lora"]["alpha_scaling"], record["run"]["nvidia_mps"]
    record["run"] |= {"mps": True, "trackers": ["tensorboard", "mlflow"]}
    record["model"]["path"] = "embedded:smollm2-135m"
    record["checkpoint"]["mirror_mb_s"] = bandwidth
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    row = {"update": 1, "canary/noise": 0.5, "time/canary": 2.0, "time/canaries": 3.0, "completion/mean_length": 8.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    event = {"update": 1, "event": "wandb does not take what it is given", "detail": "no network"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    return folder


def test_a_run_opens_under_todays_names(tmp_path: Path) -> None:
    folder = write_old_run(tmp_path / "quickstart", bandwidth=20.0)
    record = RunRecord(folder).config()
    assert (record["lora"]["rank"], record["lora"]["alpha_scaling"]) == (4, "constant")
    assert (record["run"]["report_to"], record["run"]["nvidia_mps"]) == (["tensorboard"], "on")
    assert record["model"]["path"] == "bundled:smollm2-135m"
    assert record["learner"]["dynamic_sampling"] is not load(["conf=quickstart"]).learner.dynamic_sampling
    assert record["checkpoint"]["mirror_mb_s"] == 20.0  # a report may show it
    (row,) = RunRecord(folder).rows()
    today = {"adapter_check/noise": 0.5, "time/adapter_check": 2.0, "time/canaries": 3.0, "response/mean_length": 8.0}
    assert row.content == {"update": 1} | today
    assert [event.kind for event in RunRecord(folder).events()] == [EventKind.LOGGER_FAILED]
    assert load([f"adapter={folder}/checkpoints"]).lora.rank == read_config(RunRecord(folder)).lora.rank == 4


def test_a_removed_setting_at_its_default_is_no_change(tmp_path: Path) -> None:
    turned = not load(["conf=quickstart"]).learner.dynamic_sampling
    same = ("lora.rank=4", f"learner.dynamic_sampling={str(turned).lower()}", "run.nvidia_mps=on")
    config = load(["conf=quickstart", *same, f"run.folder={tmp_path}"])
    check_settings(config, RunRecord(write_old_run(tmp_path / "quickstart")))
    with pytest.raises(BadInput, match=r"checkpoint\.mirror_mb_s"):
        check_settings(config, RunRecord(write_old_run(tmp_path / "other", bandwidth=20.0)))


def test_an_old_key_is_answered_with_todays() -> None:
    with pytest.raises(BadInput, match=r"learner\.refill: .*learner\.dynamic_sampling") as caught:
        load(["conf=quickstart", "learner.refill=true", "canary.problems=8"])
    assert "adapter_check.problems" in str(caught.value)


def test_todays_names_are_settings() -> None:
    known = {item.path for item in settings(Config)}
    sections = {path.rpartition(".")[0] for path in known}
    assert not known & {*departed.RENAMED, *departed.DEPARTED}
    assert {*departed.RENAMED.values(), *departed.VALUES} <= known | sections

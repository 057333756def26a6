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
    """Writes a run of a version in which lora.rank, its section and a tracker had other names, and one setting more."""
    monkeypatch.setattr(departed, "RENAMED", {"adapter_shape": "lora", "lora.r": "lora.rank"})
    monkeypatch.setattr(departed, "VALUES", {"run.trackers": {"tb": "tensorboard", "gone": None}})
    monkeypatch.setattr(departed, "DEPARTED", {"wonders.speed": 1.0})

    def write(speed: float) -> Path:
        record = yaml.safe_load(dump(load(["conf=quickstart", "lora.rank=4"])))
        record["adapter_shape"] = {**record.pop("lora"), "r": 4}
        del record["adapter_shape"]["rank"]
        record["run"] |= {"trackers": ["tb", "gone"]}
        record["wonders"] = {"speed": speed}
        folder = tmp_path / "quickstart"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(record))
        return folder

    return write


def test_a_run_opens_under_todays_names(old_run: Callable[[float], Path]) -> None:
    folder = old_run(2.0)
    record = RunRecord(folder).config()
    assert (record["lora"]["rank"], record["run"]["trackers"]) == (4, ["tensorboard"])
    assert record["wonders"] == {"speed": 2.0}  # a report may show it
    assert load([f"adapter={folder}/checkpoints"]).lora.rank == 4
    assert read_config(RunRecord(folder)).lora.rank == 4


def test_a_run_goes_on_unless_a_removed_setting_was_not_at_its_default(old_run: Callable[[float], Path]) -> None:
    folder = old_run(1.0)
    config = load(["conf=quickstart", "lora.rank=4", f"run.folder={folder.parent}"])
    check_settings(config, RunRecord(folder))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("speed: 1.0", "speed: 2.0"))
    with pytest.raises(BadInput, match=r"wonders\.speed"):
        check_settings(config, RunRecord(folder))


def test_what_has_departed_is_no_setting_and_what_it_has_become_is_one() -> None:
    known = {item.path for item in settings(Config)}
    sections = {path.rpartition(".")[0] for path in known}
    assert not known & {*departed.RENAMED, *departed.DEPARTED}
    assert {*departed.RENAMED.values(), *departed.VALUES} <= known | sections

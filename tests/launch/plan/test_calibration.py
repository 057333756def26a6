import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf.load import load
from conf.schema import Config
from launch.plan.calibration import UNMEASURED, Calibration, keep, recall
from launch.plan.costs import Workload
from launch.plan.machine import GIB, Machine

MACHINE = Machine("a laptop", (0, 1), 16 * GIB, 0, 0, 10e9, {"float32": 0.2e12})
MEASURED = Calibration(decode=1.6, start_s=40.0, workload=Workload(30.0, 9.0, 8.0, 0.2, 0.4), of="14 updates")


def configure(folder: Path, *settings: str) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", f"run.folder={folder}", *settings])


def store(folder: Path) -> Path:
    return folder / "calibration.json"


def test_what_was_kept_is_recalled(tmp_path: Path) -> None:
    keep(MEASURED, configure(tmp_path), MACHINE)
    assert recall(configure(tmp_path), MACHINE) == MEASURED
    longer = configure(tmp_path, "rollout.max_response_tokens=48")
    assert recall(longer, MACHINE) == replace(MEASURED, workload=None)


@pytest.mark.parametrize(
    "change",
    [{"warmth": 1.0}, {"decode": "fast"}, {"decode": None}, {"workload": {"prompt": 3.0}}, {"workload": "long"}],
)
def test_an_entry_that_does_not_parse_is_as_if_it_were_not_there(change: dict[str, object], tmp_path: Path) -> None:
    config, other = configure(tmp_path), configure(tmp_path, "rollout.max_response_tokens=48")
    keep(MEASURED, config, MACHINE)
    keep(replace(MEASURED, decode=2.0), other, MACHINE)
    entries = json.loads(store(tmp_path).read_text())
    first, second = entries
    store(tmp_path).write_text(json.dumps({first: entries[first] | change, second: entries[second]}))
    assert recall(config, MACHINE) == replace(MEASURED, decode=2.0, workload=None)
    store(tmp_path).write_text(json.dumps({first: entries[first] | change, second: []}))
    assert recall(config, MACHINE) == UNMEASURED


@pytest.mark.parametrize("text", ["", '{"a lap', "[1]", "\udcff"])
def test_a_damaged_file_is_as_if_it_were_not_there_until_it_is_written_anew(text: str, tmp_path: Path) -> None:
    store(tmp_path).write_text(text, errors="surrogateescape")
    assert recall(configure(tmp_path), MACHINE) == UNMEASURED
    keep(MEASURED, configure(tmp_path), MACHINE)
    assert recall(configure(tmp_path), MACHINE) == MEASURED

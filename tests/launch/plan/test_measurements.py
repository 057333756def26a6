"""What runs and the doctor have measured is there for later plans."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from actors.evaluation.statistics import Mean
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from conf.settings import changed
from launch.plan.measurements import Signal, keep, known, plan_measured, recall, recipe_of
from launch.plan.time import UNMEASURED, Calibration, Workload
from tests.launch.plan.plans import CPU, machine, shown

MEASURED = Calibration(decode=1.6, start_s=40.0, workload=Workload(30.0, 9.0, 8.0, 0.2, 0.4), of="14 updates")
SIGNAL = Signal(39, 16, {"pass@1": Mean(0.05, (0.02, 0.09))}, Workload(66.0, 6.0, 9.0, 0.3, 0.25), "worth it")


def configure(*settings: str) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", *settings])


def test_a_calibration_is_that_of_a_machine_a_model_and_its_lengths() -> None:
    keep(MEASURED, configure(), CPU)
    assert recall(configure(), CPU) == recall(configure("lora.rank=8"), CPU) == MEASURED
    assert recall(configure("rollout.max_response_tokens=48"), CPU) == replace(MEASURED, workload=None)
    elsewhere = replace(UNMEASURED, workload=MEASURED.workload)
    assert (
        recall(configure(), machine("A40"))
        == recall(changed(configure(), {"model.dtype": "bfloat16"}), CPU)
        == elsewhere
    )


def test_the_plan_of_the_same_recipe_uses_a_signal() -> None:
    assert known(configure())[1] == {}
    keep(SIGNAL, configure(), CPU)
    assert known(configure())[1] == {recipe_of(configure("lora.rank=8", "budget.minutes=3")): SIGNAL}
    made = plan_measured(configure(), CPU)
    assert (made.workload.response, made.workload.varied) == (9.0, 0.25)
    assert "Measured by the doctor on 39 problems" in " ".join(shown(made).split())
    assert plan_measured(configure("data.template='{problem} is'"), CPU).workload.response == 8


@pytest.mark.parametrize(
    "setting",
    [
        "rollout.max_response_tokens=48",
        "data.few_shot=[]",
        "rollout.temperature=0.7",
        "reward.accuracy=2.0",
        "data.size=99",
        "model.stop_tokens=[a]",
    ],
)
def test_another_recipe_does_not(setting: str) -> None:
    same = configure("learner.learning_rate=1e-4", "reward.workers=7", "data.hub_timeout_s=7.0")
    assert recipe_of(configure(setting)) != recipe_of(configure()) == recipe_of(same)


@pytest.mark.parametrize(
    ("setting", "file"),
    [("data.source=file:problems.jsonl", "problems.jsonl"), ("model.path=model", "model/config.json")],
)
def test_other_contents_of_the_same_file_are_another_recipe(setting: str, file: str) -> None:
    """And of a model one without a workload."""
    config, recipes = configure(setting), [recipe_of(configure(setting))]
    for text in ("1", "22"):
        keep(Calibration(workload=SIGNAL.workload), config, CPU)
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(text)
        recipes.append(recipe_of(config))
        assert (recall(config, CPU).workload is None) == ("model" in file)
    assert len({*recipes}) == 3


def test_a_run_of_the_same_recipe_knows_better_and_one_of_another_less() -> None:
    keep(SIGNAL, configure(), CPU)
    work = replace(SIGNAL.workload, response=12.0)
    for recipe, response in (("another", 9.0), (recipe_of(configure()), 12.0)):
        keep(Calibration(workload=replace(work, recipe=recipe), of="20 updates"), configure(), CPU)
        assert plan_measured(configure(), CPU).workload.response == response


@pytest.mark.parametrize("text", ['{"a lap', "[1]", '{"format": 0, "calibrations": {}, "signals": {}}'])
def test_a_file_of_another_kind_or_format_is_refused_and_stays(text: str, tmp_path: Path) -> None:
    config, file = configure(f"run.folder={tmp_path}"), tmp_path / "measurements.json"
    file.write_text(text)
    for use in (recall, partial(keep, MEASURED), partial(keep, SIGNAL)):
        with pytest.raises(BadInput, match=r"measurements\.json.*move it"):
            use(config, CPU)
    assert file.read_text() == text


@pytest.mark.parametrize("number", [0, 1e308, math.nan])
def test_a_measurement_of_impossible_numbers_is_ignored(number: float, tmp_path: Path) -> None:
    config = configure(f"run.folder={tmp_path}")
    other, file = changed(config, {"model.dtype": "bfloat16"}), tmp_path / "measurements.json"
    for place in ("decode", "workload"):
        keep(MEASURED, other, CPU)
        keep(MEASURED, config, CPU)
        known = json.loads(file.read_text())
        last = [*known["calibrations"].values()][-1]
        last[place] = last[place] | {"response": number} if place == "workload" else number
        file.write_text(json.dumps(known))
        assert recall(config, CPU) == replace(UNMEASURED, workload=MEASURED.workload)  # of the other measurement
        assert recall(other, CPU) == MEASURED

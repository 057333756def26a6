"""What the doctor has found is there for the plans of the same recipe."""

from dataclasses import replace
from pathlib import Path

import pytest

from actors.evaluation.statistics import Mean
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from launch.plan.calibration import keep, plan_measured, recall
from launch.plan.signal import Signal, keep_signal, recall_signal, recipe_of
from launch.plan.time import Calibration, Workload
from tests.launch.plan.plans import CPU, shown

SIGNAL = Signal(39, 16, {"pass@1": Mean(0.05, (0.02, 0.09))}, Workload(66.0, 6.0, 9.0, 0.3, 0.25), "worth it")


def configure(*settings: str) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", *settings])


def test_the_plan_of_the_same_recipe_uses_it() -> None:
    assert recall_signal(configure(), Path("runs")) is None
    keep_signal(SIGNAL, configure(), Path("runs"))
    assert recall_signal(configure("lora.rank=8", "budget.minutes=3"), Path("runs")) == SIGNAL
    made = plan_measured(configure(), CPU)
    assert (made.workload.response, made.workload.varied) == (9.0, 0.25)
    assert "Measured by the doctor on 39 problems" in " ".join(shown(made).split())
    other = plan_measured(configure("data.template='{problem} is'"), CPU)
    assert other.workload.response == 8
    assert "doctor" not in shown(other)


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
    config, found = configure(setting), [recipe_of(configure(setting))]
    for text in ("1", "22"):
        keep(Calibration(workload=SIGNAL.workload), config, CPU)
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(text)
        found.append(recipe_of(config))
        assert (recall(config, CPU).workload is None) == ("model" in file)
    assert recipe_of(config) == found[-1]
    assert len({*found}) == 3


def test_a_run_of_the_same_recipe_knows_better_and_one_of_another_less() -> None:
    keep_signal(SIGNAL, configure(), Path("runs"))
    work = replace(SIGNAL.workload, response=12.0)
    for recipe, response in (("another", 9.0), (recipe_of(configure()), 12.0)):
        keep(Calibration(workload=replace(work, recipe=recipe), of="20 updates"), configure(), CPU)
        assert plan_measured(configure(), CPU).workload.response == response


def test_a_file_of_another_kind_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "signal.json").write_text("[1]")
    with pytest.raises(BadInput, match=r"signal\.json"):
        keep_signal(SIGNAL, configure(), tmp_path)
    assert (tmp_path / "signal.json").read_text() == "[1]"

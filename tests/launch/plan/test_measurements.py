"""What runs and the doctor have measured is there for later plans."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from microbudget_rl.actors.evaluation.statistics import Mean
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.storage.documents import LedgerRecord
from microbudget_rl.actors.storage.files import write_document
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.plan.measurements import (
    ENOUGH,
    Signal,
    keep,
    known,
    learn_from,
    plan_measured,
    recall,
    recipe_of,
)
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.plan.time import UNMEASURED, Calibration, Workload
from tests.launch.plan.plans import CPU, estimated, machine, shown

WORK = Workload(prompt=64.0, fresh=16.0, response=8.0, spread=0.204, varied=0.4)
MEASURED = Calibration(generate=1.6, learn=0.7, start_s=40.0, workload=WORK, of="14 updates")
SIGNAL = Signal(39, 16, {"pass@1": Mean(0.05, (0.02, 0.09))}, Workload(66.0, 6.0, 9.0, 0.3, 0.25), "worth it")


def configure(*settings: str) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", *settings])


def carry_out(folder: Path, updates: int) -> Path:
    """Write the files of a run whose machine is off its rates by MEASURED, so that the right factors are known."""
    plan = make_plan(configure(), CPU, MEASURED)
    found = estimated(plan)
    row = {"groups/zero_variance": 1 - WORK.varied, "prompt/mean_length": WORK.prompt}
    row |= {"response/mean_length": WORK.response}
    totals = {"ledger/rollouts/generate": found.generate_s, "ledger/learner/update": found.learn_s}
    totals |= {"budget/spent_s": found.update_s}
    rows = [row | {"update": n} | {key: n * each for key, each in totals.items()} for n in range(1, updates + 1)]
    (folder / "samples").mkdir(parents=True)
    write_document(folder / "ledger.json", LedgerRecord(start_s=found.start_s))
    (folder / "config.yaml").write_text(dump(plan.config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verified = {"problem": "p", "gold": "1", "response": "1", "status": "correct", "finish_reason": "stop"}
    samples = [verified | {"tokens": length, "prompt": f"Same: {length:02}"} for length in (6, 8, 10)]
    for update in range(1, updates + 1):
        file = folder / "samples" / f"update-{update:06d}.jsonl"
        file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


def test_a_run_measures_itself_for_the_next_plan(tmp_path: Path):
    config = configure()
    assert learn_from(tmp_path, CPU) == learn_from(carry_out(tmp_path / "few", ENOUGH - 1), CPU) == ""
    folder = carry_out(tmp_path / "run", ENOUGH)
    assert learn_from(folder, replace(CPU, rates={})) == ""
    assert recall(config, CPU) == UNMEASURED
    assert duration(estimated(make_plan(config, CPU, MEASURED)).update_s) in learn_from(folder, CPU)
    found = recall(config, CPU)
    assert [found.generate, found.learn, found.start_s] == pytest.approx([1.6, 0.7, 40.0], rel=0.05)
    assert found.of == f"{ENOUGH - 2} updates of bundled:smollm2-135m at rank 32"
    assert found.workload
    assert (found.workload.response, found.workload.varied) == pytest.approx((WORK.response, WORK.varied))
    assert found.workload.fresh == pytest.approx(WORK.prompt * 2 / 8)  # two characters of eight differ


def test_a_speed_is_that_of_a_machine_and_a_model_and_a_workload_that_of_a_recipe():
    keep(MEASURED, configure(), CPU)
    assert recall(configure(), CPU) == recall(configure("lora.rank=8"), CPU) == MEASURED
    assert recall(configure("rollout.max_response_tokens=48"), CPU) == replace(MEASURED, workload=None)
    assert recall(configure(), machine("A40")) == replace(UNMEASURED, workload=WORK)
    assert recall(changed(configure(), {"model.dtype": "bfloat16"}), CPU).generate == 1.0
    assert recall(load(["conf=r8_instruct", "model.dtype=float32"]), CPU) == UNMEASURED


def test_the_plan_of_the_same_recipe_uses_a_signal_until_a_run_knows_better():
    config = configure()
    assert not known(config).signals
    keep(SIGNAL, config, CPU)
    assert known(config).signals == {recipe_of(configure("lora.rank=8", "budget.minutes=3")): SIGNAL}
    made = plan_measured(config, CPU)
    assert (made.workload.response, made.workload.varied) == (9.0, 0.25)
    assert "Measured by the doctor on 39 problems" in " ".join(shown(made).split())
    assert plan_measured(configure("data.template='{problem} is'"), CPU).workload.response == 8
    for measured in (MEASURED, replace(MEASURED, workload=None)):
        keep(measured, config, CPU)
        assert plan_measured(config, CPU).workload == WORK


def test_another_recipe_does_not():
    same = configure("learner.learning_rate=1e-4", "reward.workers=7", "data.hub_timeout_s=7.0")
    assert recipe_of(configure()) == recipe_of(same)
    others = ["rollout.max_response_tokens=48", "data.few_shot=[]", "rollout.temperature=0.7", "reward.accuracy=2.0"]
    others += ["data.size=99", "model.stop_tokens=[a]"]
    assert len({recipe_of(configure(*setting)) for setting in ((), *((each,) for each in others))}) == 1 + len(others)


@pytest.mark.parametrize(
    ("setting", "file"),
    [("data.source=file:problems.jsonl", "problems.jsonl"), ("model.path=model", "model/config.json")],
)
def test_other_contents_of_the_same_file_are_another_recipe(setting: str, file: str):
    config = configure(setting)
    Path(file).parent.mkdir(exist_ok=True)
    for text in ("1", "22"):
        keep(MEASURED, config, CPU)
        assert recall(config, CPU).workload == WORK
        Path(file).write_text(text)
        assert recall(config, CPU).workload is None


@pytest.mark.parametrize("text", ['{"a lap', "[1]", '{"format": 0, "measured": {}}'])
def test_a_file_of_another_kind_or_format_is_refused_and_stays(text: str, tmp_path: Path):
    config, file = configure(f"run.folder={tmp_path}"), tmp_path / "measurements.json"
    file.write_text(text)
    for use in (recall, partial(keep, MEASURED), partial(keep, SIGNAL)):
        with pytest.raises(BadInput, match=r"measurements\.json.*move it"):
            use(config, CPU)
    assert file.read_text() == text


@pytest.mark.parametrize("number", [0, 1e308, math.nan])
def test_a_measurement_of_impossible_numbers_is_ignored(number: float, tmp_path: Path):
    config, file = configure(f"run.folder={tmp_path}"), tmp_path / "measurements.json"
    keep(MEASURED, config, CPU)
    for kind, key, left in (
        ("speeds", "generate", replace(UNMEASURED, workload=WORK)),
        ("workloads", "response", UNMEASURED),
    ):
        known = json.loads(file.read_text())
        for entry in known["measured"][kind].values():
            entry[key] = number
        file.write_text(json.dumps(known))
        assert recall(config, CPU) == left

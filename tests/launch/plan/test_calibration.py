"""Files made by a plan stand in for a real run, so that the right calibration is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actors.formats import duration
from actors.storage.documents import LedgerRecord
from actors.storage.files import write_document
from actors.storage.run_record import RunRecord
from conf.load import dump, load
from conf.schema import Config
from conf.settings import changed
from launch.plan.calibration import ENOUGH, learn_from, measure
from launch.plan.measurements import recall
from launch.plan.plan import make_plan
from launch.plan.time import UNMEASURED, Calibration, Workload
from tests.launch.plan.plans import CPU, estimated

SLOWER = Calibration(decode=1.6, learn=0.7, update=1.8, sync=2.0, start_s=40.0, verify=2.0)
WORK = Workload(prompt=64.0, fresh=16.0, response=8.0, spread=0.204, varied=0.4)
UPDATES = 16


def configure(*settings: str) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", "eval.problems=0", f"budget.updates={UPDATES}", *settings])


def carry_out(folder: Path, config: Config, updates: int = UPDATES) -> Path:
    """Write the files of a run whose machine is off its rates by SLOWER."""
    plan = make_plan(config, CPU, replace(SLOWER, workload=WORK))
    assert plan.costs
    costs, found, steps = plan.costs, estimated(plan), config.algorithm.steps_per_batch
    problems, each = config.learner.problems_per_update, config.rollout.samples_per_problem
    tokens = round(problems * WORK.varied * each * WORK.response)
    passes = costs.learn_s * (tokens + problems * WORK.varied * WORK.fresh) / steps
    row = {
        "groups/zero_variance": 1 - WORK.varied,
        "prompt/mean_length": WORK.prompt,
        "response/mean_length": WORK.response,
        "tokens/trained": tokens,
        "time/learn": steps * passes + costs.update_s,
        "time/step": (steps - 1) * passes + costs.update_s,
        "time/sync": costs.sync_s,
        "time/verify": each * costs.verify_s,
        "ledger/run/start": 0.0,
        "ledger/run/starting": 21 * costs.start_s,  # after twenty starts that were cut off
    }
    rows = (
        row
        | {"update": number, "budget/spent_s": costs.start_s + number * found.update_s}
        | {"ledger/rollouts/generate": number * found.generate_s, "ledger/learner/update": number * found.learn_s}
        for number in range(1, updates + 1)
    )
    (folder / "samples").mkdir(parents=True)
    write_document(folder / "ledger.json", LedgerRecord(start_s=costs.start_s))
    (folder / "config.yaml").write_text(dump(plan.config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verified = {"problem": "p", "gold": "1", "response": "1", "status": "correct", "finish_reason": "stop"}
    samples = [verified | {"tokens": length, "prompt": f"Same: {length:02}"} for length in (6, 8, 10)]
    for update in range(1, updates + 1):
        file = folder / "samples" / f"update-{update:06d}.jsonl"
        file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


@pytest.mark.parametrize("steps", [1, 2])
def test_the_factors_of_a_machine_are_found(tmp_path: Path, steps: int) -> None:
    config = configure("algorithm.preset=dapo", f"algorithm.steps_per_batch={steps}", "learner.dynamic_sampling=false")
    found = measure(RunRecord(carry_out(tmp_path / "run", config)), CPU)
    for name in ("learn", "decode", "update", "sync", "verify", "start_s"):
        assert getattr(found, name) == pytest.approx(getattr(SLOWER, name), rel=0.05)
    assert found.workload
    assert found.workload.varied == pytest.approx(WORK.varied)
    assert found.workload.response == WORK.response
    assert found.workload.fresh == pytest.approx(WORK.prompt * 2 / 8)  # two characters of eight differ


def test_a_measurement_is_there_for_the_next_plan(tmp_path: Path) -> None:
    config = configure()
    assert recall(config, CPU) == UNMEASURED
    said = learn_from(carry_out(tmp_path / "run", config), CPU)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert duration((rows[-1]["budget/spent_s"] - rows[0]["budget/spent_s"]) / (len(rows) - 1)) in said
    found = recall(config, CPU)
    assert found.of == f"{UPDATES - 2} updates of bundled:smollm2-135m at rank 32"
    assert make_plan(config, CPU, found).costs != make_plan(config, CPU).costs
    elsewhere = recall(config, replace(CPU, name="another"))
    assert elsewhere == replace(UNMEASURED, workload=found.workload)  # the length of responses, not the speed
    config = changed(config, {"model.dtype": "bfloat16"})
    assert recall(config, CPU) == elsewhere
    assert recall(load(["conf=r8_instruct", "model.dtype=float32"]), CPU) == UNMEASURED


def test_a_run_of_a_few_updates_says_nothing(tmp_path: Path) -> None:
    assert learn_from(tmp_path, CPU) == ""
    assert learn_from(carry_out(tmp_path / "run", configure(), ENOUGH - 1), CPU) == ""
    assert learn_from(tmp_path / "run", replace(CPU, rates={})) == ""

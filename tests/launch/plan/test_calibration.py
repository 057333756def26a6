"""Files made by a plan stand in for a real run, so that what there is to find is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actors.formats import duration
from conf.load import dump, load
from conf.schema import Config
from conf.settings import changed
from launch.hardware.machine import GIB, Machine
from launch.plan.calibration import ENOUGH, Pace, keep, learn_from, measure, recall
from launch.plan.plan import make_plan
from launch.plan.time import UNMEASURED, Calibration, Workload

MACHINE = Machine("a laptop", (0, 1), 16 * GIB, 0, 0, 10e9, {"bfloat16": 0.3e12, "float32": 0.2e12})
SLOWER = Calibration(decode=1.6, learn=0.7, update=1.8, score=0.5, swap=2.0, start_s=40.0, verify=2.0)
WORK = Workload(prompt=64.0, fresh=16.0, response=8.0, spread=0.204, varied=0.4)
UPDATES = 16


def configure(*settings: str, updates: int = UPDATES) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", "eval.problems=0", f"budget.updates={updates}", *settings])


def carry_out(folder: Path, config: Config, updates: int = UPDATES) -> Path:
    """The files of a run whose machine is off its rates by SLOWER."""
    plan = make_plan(config, MACHINE, replace(SLOWER, workload=WORK))
    assert plan.costs
    assert plan.estimate
    costs, found, steps = plan.costs, plan.estimate, config.algorithm.steps_per_batch
    problems, each = config.learner.problems_per_update, config.rollout.samples_per_problem
    tokens = round(problems * WORK.varied * each * WORK.response)
    passes = costs.learn_s * (tokens + problems * WORK.varied * WORK.fresh) / steps
    row = {
        "groups/zero_variance": 1 - WORK.varied,
        "prompt/mean_length": WORK.prompt,
        "completion/mean_length": WORK.response,
        "tokens/trained": tokens,
        "staleness/max": 1.0,
        "time/learn": steps * passes + costs.update_s,
        "time/step": (steps - 1) * passes + costs.update_s,
        "time/canary": found.waits_s + found.scores_s,
        "time/sync": costs.swap_s,
        "time/verify": each * costs.verify_s,
        "ledger/run/start": 0.0,
        "ledger/run/starting": costs.start_s,
    }
    rows = (
        row
        | {"update": number, "budget/spent_s": costs.start_s + number * found.update_s}
        | {"ledger/rollouts/generate": number * found.generate_s, "ledger/learner/update": number * found.learn_s}
        for number in range(1, updates + 1)
    )
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(plan.config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for update in range(updates):
        judged = {"problem": "p", "gold": "1", "response": "1", "status": "correct", "finish_reason": "stop"}
        samples = [judged | {"tokens": length, "prompt": f"Same: {length:02}"} for length in (6, 8, 10)]
        text = "".join(json.dumps(sample) + "\n" for sample in samples)
        (folder / "samples" / f"update-{update + 1:06d}.jsonl").write_text(text)
    return folder


@pytest.mark.parametrize("steps", [1, 2])
def test_what_a_machine_is_off_by_is_found(tmp_path: Path, steps: int) -> None:
    config = configure("algorithm.preset=dapo", f"algorithm.steps_per_batch={steps}", "learner.refill=false")
    found = measure(carry_out(tmp_path / "run", config), MACHINE)
    for name in ("learn", "decode", "update", "swap", "verify", "start_s"):
        assert getattr(found, name) == pytest.approx(getattr(SLOWER, name), rel=0.05)
    assert found.score == pytest.approx(SLOWER.score, rel=0.1)
    assert found.workload
    assert found.workload.varied == pytest.approx(WORK.varied)
    assert found.workload.response == WORK.response
    assert found.workload.fresh == pytest.approx(WORK.prompt * 2 / 8)  # two characters of eight differ


def test_another_batch_staleness_and_rank_is_predicted(tmp_path: Path) -> None:
    found = measure(carry_out(tmp_path / "run", configure()), MACHINE)
    other = configure("learner.problems_per_update=8", "learner.max_staleness=2", "lora.rank=128")
    real, guess = (make_plan(other, MACHINE, known).estimate for known in (replace(SLOWER, workload=WORK), found))
    assert real
    assert guess
    assert guess.update_s == pytest.approx(real.update_s, rel=0.1)
    assert guess.generate_s == pytest.approx(real.generate_s, rel=0.1)
    assert guess.learn_s == pytest.approx(real.learn_s, rel=0.1)


def test_run_without_anything_to_learn_from_says_nothing_of_learning(tmp_path: Path) -> None:
    """As of a model that solves no problem yet."""
    folder = carry_out(tmp_path / "run", configure())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    nothing = {"tokens/trained": 0, "groups/zero_variance": 1.0}
    rows = [row | nothing | {"time/learn": row["time/step"]} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measure(folder, MACHINE)
    assert found.learn == 1.0
    assert found.update == pytest.approx(SLOWER.update, rel=0.03)


def test_what_was_found_is_there_for_the_next_plan(tmp_path: Path) -> None:
    config = configure()
    assert recall(config, MACHINE) == UNMEASURED
    said = learn_from(carry_out(tmp_path / "run", config), MACHINE)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    took = (rows[-1]["budget/spent_s"] - rows[0]["budget/spent_s"]) / (len(rows) - 1)
    assert duration(took) in said
    found = recall(config, MACHINE)
    assert found.of == f"{UPDATES - 2} updates of embedded:smollm2-135m at rank 32"
    assert make_plan(config, MACHINE, found).costs != make_plan(config, MACHINE).costs
    elsewhere = recall(config, replace(MACHINE, name="another"))
    assert elsewhere == replace(UNMEASURED, workload=found.workload)  # how long answers are, not how fast
    config = changed(config, {"model.dtype": "bfloat16"})
    assert recall(config, MACHINE) == elsewhere
    assert recall(load(["conf=r8_instruct", "model.dtype=float32"]), MACHINE) == UNMEASURED


def test_a_run_of_a_few_updates_says_nothing(tmp_path: Path) -> None:
    assert learn_from(tmp_path, MACHINE) == ""
    assert learn_from(carry_out(tmp_path / "run", configure(), ENOUGH - 1), MACHINE) == ""
    assert learn_from(tmp_path / "run", replace(MACHINE, rates={})) == ""


FOUND = Calibration(decode=1.6, start_s=40.0, workload=Workload(30.0, 9.0, 8.0, 0.2, 0.4), of="14 updates")


def recipe(folder: Path, *settings: str) -> Config:
    return load(["conf=quickstart", "model.dtype=float32", f"run.folder={folder}", *settings])


def test_what_was_kept_is_recalled(tmp_path: Path) -> None:
    keep(FOUND, recipe(tmp_path), MACHINE)
    assert recall(recipe(tmp_path), MACHINE) == recall(recipe(tmp_path, "lora.rank=8"), MACHINE) == FOUND
    longer = recipe(tmp_path, "rollout.max_response_tokens=48")
    assert recall(longer, MACHINE) == replace(FOUND, workload=None)


@pytest.mark.parametrize(
    "change",
    [{"warmth": 1.0}, {"decode": "fast"}, {"workload": {"prompt": 3.0}}],
)
def test_an_entry_that_does_not_parse_is_as_if_it_were_not_there(change: dict[str, object], tmp_path: Path) -> None:
    config, other = recipe(tmp_path), recipe(tmp_path, "rollout.max_response_tokens=48")
    keep(FOUND, config, MACHINE)
    keep(replace(FOUND, decode=2.0), other, MACHINE)
    entries = json.loads((tmp_path / "calibration.json").read_text())
    first, second = entries
    (tmp_path / "calibration.json").write_text(json.dumps({first: entries[first] | change, second: entries[second]}))
    assert recall(config, MACHINE) == replace(FOUND, decode=2.0, workload=None)
    (tmp_path / "calibration.json").write_text(json.dumps({first: entries[first] | change, second: []}))
    assert recall(config, MACHINE) == UNMEASURED


@pytest.mark.parametrize("text", ['{"a lap', "[1]", "\udcff"])
def test_a_damaged_file_is_as_if_it_were_not_there_until_it_is_written_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(text, errors="surrogateescape")
    assert recall(recipe(tmp_path), MACHINE) == UNMEASURED
    keep(FOUND, recipe(tmp_path), MACHINE)
    assert recall(recipe(tmp_path), MACHINE) == FOUND


def test_the_pace_is_what_passed_between_two_rows() -> None:
    common = {"ledger/run/start": 2.0, "ledger/run/starting": 30.0}
    first = {"budget/spent_s": 50.0, "ledger/rollouts/generate": 20.0, "ledger/learner/update": 10.0}
    last = {"budget/spent_s": 110.0, "ledger/rollouts/generate": 50.0, "ledger/learner/update": 40.0}
    learner = {"ledger/learner/canary": 2.0, "ledger/learner/sync": 4.0}
    pace = Pace.between([{}, common | first, *[common] * 9, common | last | learner], skipped=2)
    assert pace == Pace(start_s=32.0, update_s=6.0, generate_s=3.0, learn_s=3.6)
    assert (pace.rollouts_idle, pace.learner_idle) == (0.5, pytest.approx(0.4))

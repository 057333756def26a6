import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from actors.messages import AdapterRef, Group, Problem, Sample, Sampling
from conf.load import load
from launch.benches import mismatch, small_model
from launch.benches.mismatch import UNCORRECTED, Cell
from launch.benches.small_runs import Size, configure, describe, finished, study, train, vllm_engine
from rewards.pool import VerifierPool
from rewards.problems.loading import load as load_problems
from rewards.reward import reward_function
from tests.fakes import FakeEngine

SMALL = Size(updates=5, problems=2, samples=4, every=5, heldout=4)


class GuessingEngine(FakeEngine):
    """Answers with random digits in a box, and notes which version each group came from.

    drawn: for every training group its index and version
    """

    def __init__(self) -> None:
        super().__init__(seconds=0.0)
        self.drawn: dict[int, int] = {}

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        group = await super().generate(index, problem, adapter, sampling)
        if sampling.samples == SMALL.samples:
            self.drawn[index] = group.version
        rng = random.Random(sampling.seed)
        boxed, close, end = 2, 3, 1
        samples = []
        for number in range(sampling.samples):
            right = [int(digit) + 4 for digit in problem.gold]
            digits = right if number == 0 else [4 + rng.randrange(10), 4 + rng.randrange(10)]
            text = f"\\boxed{{{''.join(str(digit - 4) for digit in digits)}}}"
            ids = (boxed, *digits, close, end)
            samples.append(Sample(ids, tuple(-rng.random() for _ in ids), text, "stop"))
        return Group(index, problem, adapter, tuple(samples))


def trained(cell: Cell, model: str) -> tuple[GuessingEngine, dict[str, Any]]:
    config = configure(model, SMALL)
    problems = load_problems(config, AutoTokenizer.from_pretrained(model))
    engine = GuessingEngine()
    with VerifierPool(reward_function(config), 1) as verifier:
        row = asyncio.run(train(cell, SMALL, engine, verifier, problems, model, 7))
    return engine, row


@pytest.mark.parametrize("staleness", [0, 1, 4])
def test_groups_are_exactly_as_stale_as_asked(staleness: int, model: str) -> None:
    engine, row = trained(Cell(1e-3, staleness, 0, "bypass"), model)
    ages = {index: index // SMALL.problems - version for index, version in engine.drawn.items()}
    taken = {index: age for index, age in ages.items() if index < SMALL.problems * SMALL.updates}
    assert taken == {index: min(index // SMALL.problems, staleness) for index in range(SMALL.problems * SMALL.updates)}
    assert not engine.slots.held
    assert len(row["entropy"]) == SMALL.updates
    assert len(row["scores"]) == 2


def test_without_correction_every_weight_is_one(model: str) -> None:
    _, row = trained(Cell(1e-3, 0, 0, UNCORRECTED), model)
    assert row["effective_share"] == pytest.approx([1.0] * SMALL.updates)
    _, corrected = trained(Cell(1e-3, 0, 0, "token_tis"), model)
    assert max(corrected["effective_share"]) < 0.99


def test_every_cell_has_settings_that_are_accepted() -> None:
    cells = list(mismatch.cells())
    assert len(cells) == len(set(cells)) == 120
    for cell in cells[:20]:
        config = load(["conf=quickstart", *cell.settings])
        assert config.learner.max_staleness == cell.staleness
    assert {cell.seed for cell in cells[:20]} == {0}, "a study that is cut off has all cells of its first seeds"


def test_a_run_that_loses_half_of_its_best_has_collapsed() -> None:
    assert describe([0.1, 0.5, 0.24], [])["collapsed"]
    assert not describe([0.1, 0.5, 0.26], [])["collapsed"]


def test_modes_are_compared_with_the_default_of_their_cell() -> None:
    def run(mode: str, seed: int, end: float) -> dict[str, Any]:
        return {
            "mode": mode,
            "rate": 3e-3,
            "staleness": 1,
            "seed": seed,
            "end": end,
            "best": 0.6,
            "collapsed": end < 0.3,
        }

    runs = [run("bypass", 0, 0.5), run("bypass", 1, 0.6), run("icepop", 0, 0.2), run("icepop", 1, 0.35)]
    result = mismatch.table([*runs, {**run("token_tis", 0, 0.9), "staleness": 4}])
    ends = {row.case: (row.value, row.baseline) for row in result.rows if row.metric.endswith("end")}
    assert ends == {
        "bypass, rate 0.003, staleness 1": (pytest.approx(0.55), pytest.approx(0.55)),
        "icepop, rate 0.003, staleness 1": (pytest.approx(0.275), pytest.approx(0.55)),
    }
    assert "icepop, rate 0.003, staleness 1: 0.275 ± 0.953 in the end, 0.600 at best; 1 of 2 runs collapsed." in (
        result.notes
    )


def test_small_model_boxes_its_answers_and_knows_some(tmp_path: Path) -> None:
    tokenizer = small_model.make_tokenizer()
    ids = tokenizer("7 + 35 =\\boxed{42}<end>").input_ids
    assert len(ids) == 13
    assert tokenizer.decode(ids, skip_special_tokens=True) == "7 + 35 =\\boxed{42}"


@pytest.mark.slow
def test_a_real_engine_serves_several_runs(model: str, tmp_path: Path) -> None:
    cells = [Cell(1e-3, 1, 0, "bypass"), Cell(1e-3, 1, 0, "icepop")]
    file = tmp_path / "runs.jsonl"
    asyncio.run(study(lambda _: cells, SMALL, model, file, vllm_engine))
    asyncio.run(study(lambda _: [], SMALL, model, file, vllm_engine))
    assert [row["mode"] for row in finished(file)] == ["bypass", "icepop"]

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.messages import AdapterRef, Group, Problem, Sampling
from conf.load import load
from launch.benches import ranks
from launch.benches.local_engine import LocalEngine
from launch.benches.ranks import SEEDS, SETTINGS, TUNING_SEED, Setting, cells, rates, table
from launch.benches.small_runs import Cell, Size, finished, missing, study


def outcome(cell: Cell, end: float) -> dict[str, Any]:
    return {**asdict(cell), "scores": [0.2, end], "end": end, "best": end, "collapsed": False}


def test_beyond_the_best_rate_another_is_tried() -> None:
    first = rates({}, 64)
    assert first == [move / 64 for move in ranks.MOVES]
    low, middle, high = first
    assert rates({low: 0.1, middle: 0.3, high: 0.2}, 64) == first
    assert rates({low: 0.3, middle: 0.2, high: 0.1}, 64) == [low / 2, *first]
    assert rates({low: 0.1, middle: 0.2, high: 0.3}, 64) == [*first, 2 * high]
    ever_better = {first[0] * 2.0**power: float(power) for power in range(10)}
    assert len(rates(ever_better, 64)) == ranks.MOST_RATES


def test_every_setting_is_compared_at_its_own_best_rate() -> None:
    """A study that is cut off has all settings of its first seeds."""
    runs: list[dict[str, Any]] = []
    while cell := missing(cells(runs), runs):
        best = 0.02 / Setting(cell.rank, cell.rule).alpha if cell.rank == 64 else cell.rate / 2
        runs.append(outcome(cell, 0.5 - abs(cell.rate - best)))
    counted = [run for run in runs if run["seed"] != TUNING_SEED]
    assert [run["seed"] for run in counted] == [seed for seed in SEEDS for _ in SETTINGS]
    for run in counted:
        tried = [other for other in runs if other["seed"] == TUNING_SEED and ranks.of_setting([other], setting_of(run))]
        assert run["rate"] == max(tried, key=lambda other: other["end"])["rate"]
    result = table(runs)
    assert len(result.rows) == len(SETTINGS) == 12
    assert result.rows[0].baseline == pytest.approx(0.2)


def setting_of(run: dict[str, Any]) -> Setting:
    return Setting(run["rank"], run["rule"])


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_cell_has_settings_that_are_accepted(setting: Setting) -> None:
    config = load(["conf=quickstart", *setting.cell(1e-3, 5).settings])
    assert (config.lora.rank, config.lora.alpha) == (setting.rank, setting.alpha)
    assert (config.run.seed, config.learner.learning_rate) == (5, 1e-3)


@pytest.fixture
def adapter(model: str, tmp_path: Path) -> AdapterRef:
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype="float32"), lora)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    return AdapterRef(1, 0, str(tmp_path / "adapter"))


def test_local_engine_draws_from_the_adapter_asked_for_whatever_else_is_asked(model: str, adapter: AdapterRef) -> None:
    tokenizer, engine = AutoTokenizer.from_pretrained(model), LocalEngine(model)
    problem, other = (Problem(text, text, tuple(tokenizer(text).input_ids), "1") for text in ("7 + 35 =", "4 + 2"))
    sampling = Sampling(3, 8, 0.7, 1.0, 11)

    async def scenario() -> tuple[Group, list[Group]]:
        await engine.load(adapter)
        alone = await engine.generate(0, problem, adapter, sampling)
        asked = [(other, adapter, 2), (problem, None, 11), (problem, adapter, 11), (problem, adapter, 12)]
        requests = [engine.generate(0, p, served, replace(sampling, seed=seed)) for p, served, seed in asked]
        return alone, await asyncio.gather(*requests)

    alone, (_, base, again, reseeded) = asyncio.run(scenario())
    tokens = [[sample.token_ids for sample in group.samples] for group in (alone, again, base, reseeded)]
    assert tokens[0] == tokens[1]
    assert tokens[0] not in tokens[2:]
    for group in (base, alone):
        reference = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
        if group.adapter:
            reference = PeftModel.from_pretrained(reference, adapter.path)
        for sample in group.samples:
            ids = torch.tensor([(*problem.prompt_ids, *sample.token_ids)])
            with torch.no_grad():
                logits = reference(ids).logits[0, len(problem.prompt_ids) - 1 : -1] / 0.7
            expected = logits.log_softmax(-1).gather(1, ids[0, len(problem.prompt_ids) :, None])[:, 0]
            assert torch.tensor(sample.logprobs) == pytest.approx(expected, abs=1e-4)
            assert sample.finish_reason == ("stop" if sample.token_ids[-1] == tokenizer.eos_token_id else "length")


def test_a_study_goes_on_where_it_was_cut_off(model: str, tmp_path: Path) -> None:
    file, size = tmp_path / "runs.jsonl", Size(updates=2, problems=2, samples=4, every=2, heldout=4)
    wanted = [Setting(256, "sqrt").cell(1e-3, 0), Setting(1, "fixed").cell(1e-3, 0)]
    for count in (1, 2, 2):
        asyncio.run(study(lambda _, count=count: wanted[:count], size, model, file, lambda _, path: LocalEngine(path)))
        assert [run["rank"] for run in finished(file)] == [256, 1][:count]

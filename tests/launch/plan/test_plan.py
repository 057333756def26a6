from pathlib import Path

import pytest

from conf.errors import BadInput
from launch.plan.forecast import forecast, options
from launch.plan.refusal import check_plan
from tests.launch.plan.plans import CPU, machine, plan


def test_quickstart_fits_a_laptop_and_makes_updates() -> None:
    made = plan("quickstart", CPU)
    check_plan(made)
    assert made.fits
    assert made.estimate
    assert made.estimate.update_s < 20


@pytest.mark.parametrize("rank", [8, 64, 256])
@pytest.mark.parametrize("model", ["instruct", "llama", "math", "qwen3", "deepscaler"])
def test_the_papers_grid_fits_its_card_and_its_day(model: str, rank: int) -> None:
    made = plan(f"r{rank}_{model}", machine("A40"))
    check_plan(made)
    assert made.fits
    assert forecast(made).updates >= 300


@pytest.mark.parametrize("recipe", ["gemma3", "qwen3_1.7b", "smollm3"])
def test_the_other_models_fit_the_same_card(recipe: str) -> None:
    made = plan(recipe, machine("A40"))
    check_plan(made)
    assert made.fits
    assert forecast(made).updates >= 300


def test_a_deterministic_run_takes_turns_and_answers_alone_where_vllm_has_no_mode_for_it() -> None:
    asked = ("run.deterministic=true", "budget.updates=20")
    usual, made, card = (
        plan("quickstart", CPU),
        plan("quickstart", CPU, *asked),
        plan("r8_instruct", machine("A40"), *asked),
    )
    assert (usual.at_once, made.at_once, card.at_once) == (64, 8, plan("r8_instruct", machine("A40")).at_once)
    assert usual.estimate
    assert made.estimate
    assert made.estimate.update_s == pytest.approx(made.estimate.generate_s + made.estimate.learn_s)
    assert made.estimate.generate_s > 1.5 * usual.estimate.generate_s
    assert made.estimate.evaluate_s > 3 * usual.estimate.evaluate_s
    others = dict(options(made))
    assert others["run.deterministic=false"].update_s == pytest.approx(forecast(usual).update_s, rel=0.1)
    assert others["run.deterministic=false"].update_s < forecast(made).update_s


def test_reward_workers_asked_for_win() -> None:
    assert plan("quickstart", CPU, "reward.workers=3").placement.reward_workers == 3
    assert plan("quickstart", CPU).placement.reward_workers == 1


def test_shape_is_read_where_it_is_not_declared(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,'
        ' "vocab_size": 100, "max_position_embeddings": 256, "tie_word_embeddings": true}'
    )
    assert plan("quickstart", CPU, f"model.path={tmp_path}").shape.layers == 2
    with pytest.raises(BadInput, match="exceed the 256"):
        plan("quickstart", CPU, f"model.path={tmp_path}", "rollout.max_response_tokens=200")

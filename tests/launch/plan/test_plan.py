import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from conf.errors import BadInput
from conf.load import FOLDER, load
from launch.hardware.machine import Machine, detect
from launch.plan.options import options
from launch.plan.plan import Problems, count_problems, make_plan, with_problems
from launch.plan.refusal import check_plan
from launch.plan.view import render
from tests.launch.plan.plans import CPU, machine, plan

EXAMPLE = FOLDER / "mine.csv"


def test_quickstart_fits_a_laptop_and_makes_updates() -> None:
    made = plan("quickstart", CPU)
    check_plan(made)
    assert made.fits
    assert made.estimate
    assert made.estimate.update_s < 20


@pytest.mark.parametrize(
    "recipe",
    [f"r{rank}_{model}" for rank in (8, 64, 256) for model in ("instruct", "llama", "math", "qwen3", "deepscaler")]
    + ["gemma3", "qwen3_1.7b", "smollm3"],
)
def test_every_recipe_fits_its_card_and_its_day(recipe: str) -> None:
    made = plan(recipe, machine("A40"))
    check_plan(made)
    assert made.fits
    assert made.estimate
    assert made.estimate.updates >= 300


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
    other = options(made)["run.deterministic=false"]
    assert other.update_s == pytest.approx(usual.estimate.update_s, rel=0.1)
    assert other.update_s < made.estimate.update_s


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


def test_cards_are_given_to_the_learner_while_that_makes_updates_shorter() -> None:
    ranks = {gpus: len(plan("r8_instruct", machine("A40", gpus)).placement.learners) for gpus in (1, 2, 4, 16)}
    assert ranks[1] == ranks[2] == 1 <= ranks[4] < ranks[16] < 15
    derived, asked = plan("r8_instruct", machine("A40", 16)), plan("r8_instruct", machine("A40", 16), "learner.ranks=1")
    assert len(asked.placement.learners) == 1
    assert derived.estimate
    assert asked.estimate
    assert derived.estimate.update_s < asked.estimate.update_s


def test_ranks_that_take_turns_with_rollouts_are_weighed_by_that() -> None:
    placement = plan("r256_instruct", machine("A40", 4), "learner.max_staleness=0").placement
    update_s = {}
    for ranks in (1, 2, 3):
        estimate = plan(
            "r256_instruct", machine("A40", 4), "learner.max_staleness=0", f"learner.ranks={ranks}"
        ).estimate
        assert estimate
        assert estimate.update_s == pytest.approx(estimate.generate_s + estimate.learn_s)
        update_s[ranks] = estimate.update_s
    assert len(placement.learners) == min(update_s, key=lambda ranks: update_s[ranks])


def test_ranks_that_the_host_has_no_memory_for_are_not_chosen() -> None:
    many = plan("r8_instruct", machine("A40", 16))
    short = plan("r8_instruct", machine("A40", 16, host_memory=int(many.needed("host")) - 1))
    assert short.fits
    assert len(short.placement.learners) > len(many.placement.learners)


@pytest.mark.parametrize(
    ("where", "ranks", "most"),
    [(CPU, 3, 2), (machine("A40"), 2, 1), (machine("A40", 2), 2, 1), (machine("A40", 4), 4, 3)],
)
def test_too_many_ranks_are_refused(where: Machine, ranks: int, most: int) -> None:
    with pytest.raises(BadInput, match=rf"learner.ranks={ranks}: too many for .*; use at most {most}"):
        plan("quickstart", where, f"learner.ranks={ranks}")
    assert len(plan("quickstart", where, f"learner.ranks={most}").placement.learners) == most


def test_the_example_beside_the_recipe_is_enough_for_it() -> None:
    config = load(["conf=mine", f"data.source=file:{EXAMPLE}"])
    assert count_problems(config) == Problems(train=15, heldout=5, left_out=0)
    assert r"\boxed{}" in config.data.template
    assert load(["conf=mine"]).data.source == f"file:{EXAMPLE.relative_to(FOLDER.parent.parent)}"


def test_a_plan_says_how_many_problems_a_file_has() -> None:
    counted = with_problems(
        make_plan(load(["conf=mine", f"data.source=file:{EXAMPLE}", "model.dtype=float32"]), detect("cpu"))
    )
    assert counted.config.eval.problems == 5
    screen = StringIO()
    Console(width=200, file=screen).print(render(counted))
    assert "15 problems to train on, 2 updates" in screen.getvalue()


def test_columns_of_other_names_are_refused_by_the_plan_too(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("q,a\n1 + 1,2\n")
    with pytest.raises(BadInput, match=r"set it to one of its fields \(q, a\)"):
        count_problems(load(["conf=mine", f"data.source=file:{tmp_path / 'own.csv'}"]))


def test_problems_of_their_own_to_hold_out(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "exam.csv")
    config = load(["conf=mine", f"data.source=file:{EXAMPLE}", f"data.eval_source=file:{tmp_path / 'exam.csv'}"])
    assert count_problems(config) == Problems(train=20, heldout=20, left_out=0)
    assert count_problems(load(["conf=quickstart"])) is None

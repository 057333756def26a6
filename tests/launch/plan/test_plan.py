import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from microbudget_rl.actors.runtime.placement import WHOLE_GPU
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import FOLDER, load, recipe_names
from microbudget_rl.launch.hardware.machine import GIB, Machine, detect
from microbudget_rl.launch.plan.plan import Problems, count_problems, make_plan
from microbudget_rl.launch.plan.refusal import check_plan
from microbudget_rl.launch.plan.view import FEWEST_UPDATES
from tests.launch.plan.plans import CPU, entry, estimated, machine, plan, shown

EXAMPLE = FOLDER / "mine.csv"


@pytest.mark.parametrize("recipe", sorted({*recipe_names()} - {"base", "mine"}))
def test_every_recipe_fits_its_machine_and_learns_within_its_budget(recipe: str):
    made = plan(recipe, CPU if recipe == "quickstart" else machine("A40"))
    check_plan(made)
    assert made.fits
    assert estimated(made).updates > FEWEST_UPDATES


def test_a_deterministic_run_takes_turns_and_on_a_cpu_one_request_at_a_time():
    asked = ("run.deterministic=true", "budget.updates=20")
    usual, made = plan("quickstart", CPU), plan("quickstart", CPU, *asked)
    gpu = plan("r8_instruct", machine("A40"), *asked)
    assert (usual.at_once, made.at_once, gpu.at_once) == (64, 8, plan("r8_instruct", machine("A40")).at_once)
    slow, fast = estimated(made), estimated(usual)
    assert slow.update_s == pytest.approx(slow.generate_s + slow.learn_s)
    assert slow.generate_s > 1.5 * fast.generate_s
    assert slow.evaluate_s > 3 * fast.evaluate_s


def test_samples_that_the_models_context_does_not_hold_are_refused():
    with pytest.raises(BadInput, match="exceed the 8192"):
        plan("quickstart", CPU, "rollout.max_response_tokens=9000")


def test_gpus_are_given_to_the_learner_while_that_makes_updates_shorter():
    one, many = (plan("r8_instruct", machine("A40", gpus)) for gpus in (1, 16))
    two = plan("r8_instruct", machine("A40", 2), "rollout.actors=1")
    asked = plan("r8_instruct", machine("A40", 16), "learner.world_size=1")
    ranks = [len(made.placement.learners) for made in (one, two, asked, many)]
    assert ranks[:3] == [1, 1, 1]
    assert 1 < ranks[3] < 15
    updates = [estimated(made).update_s for made in (one, two, asked, many)]
    assert updates == sorted(updates, reverse=True)
    assert estimated(one).learn_s > 1.5 * estimated(two).learn_s  # they share the GPU


@pytest.mark.parametrize("staleness", [0, 1])
def test_engines_share_the_learners_gpus_where_that_pays_and_fits(staleness: int):
    """Two GPUs learn from twice the samples that one GPU learns from."""
    given = (f"learner.max_staleness={staleness}", "rollout.max_concurrent_samples=128")
    double = ("learner.problems_per_update=32", *given)
    one, both = plan("r256_instruct", machine("A40"), *given), plan("r256_instruct", machine("A40", 2), *double)
    apart = plan("r256_instruct", machine("A40", 2), *double, "rollout.actors=1", "learner.world_size=1")
    assert (len(both.placement.rollouts), len(both.placement.learners), both.placement.shared_gpus) == (2, 2, 2)
    assert both.fits
    assert estimated(both).update_s < 0.95 * estimated(apart).update_s
    assert estimated(both).update_s == pytest.approx(estimated(one).update_s, rel=0.1)
    small = plan("r256_instruct", replace(machine("A40", 2), gpu_memory=12 * GIB), *double)
    assert (small.placement.shared_gpus, small.fits) == (0, True)


def test_ranks_without_host_memory_are_not_chosen():
    many = plan("r8_instruct", machine("A40", 16))
    short = plan("r8_instruct", machine("A40", 16, host_memory=int(many.needed("host")) - 1))
    assert short.fits
    assert len(short.placement.learners) > len(many.placement.learners)


@pytest.mark.parametrize(("where", "most"), [(CPU, 2), (machine("A40"), 1), (machine("A40", 4), 4)])
@pytest.mark.parametrize("key", ["learner.world_size", "rollout.actors"])
def test_too_many_actors_are_refused(where: Machine, most: int, key: str):
    with pytest.raises(BadInput, match=rf"{key}={most + 1}: too many for .*; use at most {most}"):
        plan("quickstart", where, f"{key}={most + 1}")
    plan("quickstart", where, f"{key}={most}")


def test_a_large_gpu_takes_more_at_once_unless_told_otherwise():
    for where, samples in ((machine("A40"), 256), (machine("RTX3060"), 256), (machine("RTX3060Ti"), 128), (CPU, 128)):
        made = plan("gsm8k", where)
        assert made.config.rollout.max_concurrent_samples == samples
        assert made.config.learner.tokens_per_microbatch == (16_384 if where.name == "A40" else 4096)
        asked = plan("gsm8k", where, "rollout.max_concurrent_samples=32", "learner.tokens_per_microbatch=5000")
        assert (asked.at_once, asked.config.learner.tokens_per_microbatch) == (32, 5000)


@pytest.mark.parametrize(
    ("gib", "fit", "chosen"), [(18, (False, True), "on"), (24, (True, True), "on"), (32, (True, True), "off")]
)
def test_shares_of_a_gpu_follow_needs(gib: int, fit: tuple[bool, bool], chosen: str):
    """Activations are kept where that makes updates shorter, although the KV cache gets less memory."""
    gpu, own = replace(machine("A40"), gpu_memory=gib * GIB), "model.shared_weights=off"
    ways = {
        way: plan("r256_instruct", gpu, own, f"learner.gradient_checkpointing={way}") for way in ("off", "on", "auto")
    }
    kept, again = ways["off"], ways["on"]
    assert (kept.fits, again.fits) == fit
    assert again.available["learner GPU"] < kept.available["learner GPU"]  # type: ignore[operator]
    assert again.at_once > kept.at_once or again.at_once == again.config.rollout.concurrent_samples
    assert not again.tight
    assert ways["auto"].config == ways[chosen].config
    assert estimated(ways[chosen]).update_s == min(estimated(each).update_s for each in (kept, again) if each.fits)


def test_activations_are_kept_on_a_gpu_of_its_own_only_with_memory_to_spare():
    off, small = "learner.gradient_checkpointing=off", replace(machine("A40", 2), gpu_memory=20 * GIB)
    need = plan("r256_instruct", small, off).needed("learner GPU") / WHOLE_GPU
    for spare, tight in ((1.03, True), (1.05, False)):
        gpus = replace(small, gpu_memory=int(spare * need))
        kept, chosen = plan("r256_instruct", gpus, off), plan("r256_instruct", gpus)
        assert kept.fits
        assert (kept.tight, chosen.config.learner.recomputes) == (tight, tight)
    unlisted = replace(machine("A40"), rates={}, bandwidth=None)
    assert not plan("r256_instruct", unlisted).config.learner.recomputes
    assert not plan("quickstart", CPU).config.learner.recomputes


def test_weights_are_shared_where_nothing_else_fits_or_by_name():
    small, large = machine("RTX4090"), machine("A40")
    own, shared = (plan("qwen2.5-7b", small, f"model.shared_weights={way}") for way in ("off", "auto"))
    assert (own.fits, shared.fits, shared.tight) == (False, True, False)
    assert shared.placement.weights
    assert {"rollout GPU", "learner GPU", "weights GPU"} < shared.available.keys()
    assert entry(shared, "base weights, shared") == entry(own, "engine: base weights")
    assert not [part for part in shared.memory if part.what in ("engine: base weights", "learner: base weights")]
    own, shared = (plan("r64_instruct", small, f"model.shared_weights={way}") for way in ("auto", "on"))
    assert (own.placement.weights, own.tight, bool(shared.placement.weights)) == (None, False, True)
    assert estimated(shared).update_s < 0.95 * estimated(own).update_s
    gemma_4 = plan("qwen2.5-7b", small, "model.shape.sizes={global_head_dim: 128}")
    for alone in (
        plan("r256_instruct", large),
        plan("qwen2.5-7b", machine("A40", 2)),
        plan("quickstart", CPU),
        gemma_4,
    ):
        assert not alone.placement.weights
        assert not alone.config.model.shares_weights
    assert "for both" in shown(shared)


def test_problems_of_a_file_are_counted_and_those_of_a_generator_not(tmp_path: Path):
    own = ["conf=mine", f"data.source=file:{EXAMPLE}", "model.dtype=float32"]
    problems = count_problems(load(own))
    assert problems == Problems(15, 5, 0, epoch=15)
    text = shown(replace(make_plan(load(own), detect("cpu")), problems=problems))
    assert "5 problems × " in text
    assert "15 problems train, 0 choose the result, 5 report it. About " in text
    shutil.copy(EXAMPLE, tmp_path / "exam.csv")
    own.append(f"data.eval_source=file:{tmp_path / 'exam.csv'}")
    both = load([*own, "data.contamination=report_only"])
    assert count_problems(both) == Problems(20, 20, 0, epoch=20)
    with pytest.raises(BadInput, match="0 training problems"):
        count_problems(load(own))
    assert count_problems(load(["conf=quickstart"])) is None
    (tmp_path / "own.csv").write_text("q,a\n1 + 1,2\n")
    with pytest.raises(BadInput, match=r"\(q, a\)"):
        count_problems(load(["conf=mine", f"data.source=file:{tmp_path / 'own.csv'}"]))

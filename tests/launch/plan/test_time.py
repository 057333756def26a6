from dataclasses import replace
from pathlib import Path

import pytest

from microbudget_rl.conf.schema.evaluation import UNKNOWN
from microbudget_rl.launch.plan.time import Calibration, Estimate, costs_of, estimate
from tests.launch.plan.plans import CPU, estimated, machine, plan

APART = ("r8_instruct", machine("A40", 2), "rollout.actors=1", "learner.world_size=1")
"""An engine and a learner, each with a GPU to itself."""


@pytest.mark.parametrize(("side", "other", "slower"), [("rollouts", "learners", 1), ("learners", "rollouts", 50)])
def test_the_slower_of_generation_and_learning_bounds_a_run(side: str, other: str, slower: int):
    """slower: factor by which the learner is slower than planned."""
    made = plan(*APART)

    def update_s(**more: int) -> float:
        shares = {each: count * getattr(made.placement, each) for each, count in more.items()}
        placed = replace(made, placement=replace(made.placement, **shares))
        found = estimate(placed, made.workload, made.at_once, Calibration(learn=slower))
        return found.update_s if found else 0.0

    assert update_s(**{side: 2}) < 0.85 * update_s()
    assert update_s(**{other: 2}) == pytest.approx(update_s(), rel=0.05)


def test_learning_hides_behind_generation_as_far_as_the_staleness_allows():
    in_turns, *overlapping = (estimated(plan(*APART, f"learner.max_staleness={staleness}")) for staleness in (0, 1, 2))
    assert in_turns.update_s == pytest.approx(in_turns.generate_s + in_turns.learn_s)
    assert in_turns.update_s > overlapping[0].update_s > overlapping[1].update_s >= overlapping[1].generate_s


def test_a_shared_gpu_takes_less_time_with_mps():
    off, on = (estimated(plan("r256_instruct", machine("A40"), f"run.nvidia_mps={way}")) for way in ("off", "on"))
    assert (on.update_s < off.update_s, on.learn_s < off.learn_s) == (True, True)


def test_a_faster_gpu_reaches_less_of_its_rate_while_learning_and_more_with_a_larger_microbatch():
    seconds = []
    for gpu, tokens in ("RTX3060", 4096), ("H100", 4096), ("H100", 16_384):
        made = plan(
            "gsm8k", machine(gpu), f"learner.tokens_per_microbatch={tokens}", "learner.gradient_checkpointing=off"
        )
        costs = costs_of(made, made.workload)
        seconds.append(costs and costs.learn_s * made.machine.rates["bfloat16"])
    assert [0.53 * seconds[0] / each for each in seconds] == pytest.approx([0.53, 0.12, 0.30], abs=0.02)


def quickstart(*settings: str) -> Estimate:
    return estimated(plan("quickstart", CPU, *settings))


def test_the_budget_holds_start_evaluations_and_updates():
    found, few = quickstart(), quickstart("budget.updates=3")
    used_s = found.start_s + 2 * found.evaluate_s + found.updates * found.update_s
    assert used_s <= found.spent_s == 480
    assert found.updates > found.updates_in_all(0, 180.0) > 0
    assert found.updates_in_all(7, 180.0) > 7 + found.updates_in_all(0, 180.0)  # the base model is evaluated once
    assert (found.updates_in_all(7, 479.0), few.updates_in_all(2, 180.0), few.updates) == (7, 3, 3)
    assert few.start_s + 3 * few.update_s < few.spent_s < 480


def test_benchmarks_take_time_before_and_after_training(tmp_path: Path):
    file = tmp_path / "exam.csv"
    file.write_text("problem,answer\n" + "".join(f"{number} + 1,{number + 1}\n" for number in range(256)))
    entry = f"{{source: 'file:{file}', n: 1}}"
    entries = ("", entry, entry.replace("}", ", limit: 64}"), "{source: 'hub:a/b', n: 1}")
    never, whole, part, unknown = (quickstart("eval.n=1", f"eval.benchmarks=[{each}]") for each in entries)
    problems = never.config.eval.problems
    times = [found.benchmarks_s / never.evaluate_s * problems for found in (never, whole, part, unknown)]
    assert times == pytest.approx([0, 256, 64, UNKNOWN], rel=0.06)  # each waits for its longest response
    assert whole.evaluations_s == pytest.approx(2 * (never.evaluate_s + whole.benchmarks_s))
    assert never.updates > part.updates > whole.updates


def test_validations_take_updates_from_the_budget_up_to_their_fraction():
    never, often, always = (
        quickstart(f"validation.every={every}", f"validation.share={share}")
        for every, share in ((0, 0.05), (2, 0.5), (1, 0.5))
    )
    assert always.updates < often.updates < never.updates
    short, half = replace(never, update_s=0.01), replace(always, update_s=0.01)
    reserved = half.evaluate_s + half.validation_s  # for the last policy beside the result
    assert half.updates == pytest.approx((short.updates - reserved / short.update_s) / 2, abs=1)


def test_an_evaluation_lasts_until_its_longest_response_has_ended():
    made = plan("r256_instruct", machine("A40"))
    even, uneven = (replace(made.workload, spread=spread) for spread in (0.0, 0.5))
    short, long = (estimate(made, work, made.at_once) for work in (even, uneven))
    assert short
    assert long
    assert long.validation_s > 1.3 * short.validation_s > 0  # 100 problems beside 256 places


def test_another_start_takes_an_evaluation_and_a_warm_one_its_fraction_of_the_budget():
    warm = "warm_start.source=self"
    never, apart = quickstart(), quickstart("lora.start_from=sft")
    short, long = quickstart(warm), quickstart(warm, "warm_start.fraction=0.5")
    assert apart.evaluations == short.evaluations == never.evaluations + 1
    assert (short.warm_start_s, never.warm_start_s) == (48, 0)
    assert short.updates_in_all(7, 180.0) == never.updates_in_all(7, 180.0)  # it is over
    taken = long.warm_start_s + long.evaluate_s
    assert long.updates == pytest.approx(never.updates - taken / never.update_s, abs=2)
    assert long.updates < short.updates < apart.updates < never.updates

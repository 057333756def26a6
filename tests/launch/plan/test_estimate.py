from dataclasses import replace

import pytest

from actors.runtime.placement import Placement, Share
from conf.schema import Config
from conf.settings import changed
from launch.plan.estimate import Estimate, estimate, longest_of
from launch.plan.time import Costs, Workload
from tests.launch.plan.plans import CPU, estimated, plan

COSTS = Costs(
    step_s=0.1,
    sample_s=0.0,
    prefill_s=0.0,
    learn_s=0.001,
    score_s=0.0,
    update_s=0.0,
    sync_s=0.0,
    verify_s=0.0,
    start_s=5.0,
)
"""An engine decodes ten tokens per second of each sample, however many; the learner takes a thousand per second."""

WORK = Workload(prompt=100.0, fresh=100.0, response=100.0, spread=0.0, varied=1.0)
"""A group takes ten seconds to generate and 0.3 s to learn."""

GPU = Share(gpus=1.0)
OWN = Placement("cuda", (GPU,), (GPU,), 1)
SHARED = Placement("cuda", (Share(gpus=0.5),), (Share(gpus=0.5),), 1)
SLOW = replace(COSTS, learn_s=0.05)
"""A batch takes the learner 60 s."""


def of(
    costs: Costs = COSTS, placement: Placement = OWN, at_once: int = 16, together: float = 1.0, max_staleness: int = 1
) -> Estimate:
    """Four groups of two samples per update."""
    config = Config()
    config = changed(
        config,
        {
            "learner.problems_per_update": 4,
            "rollout.samples_per_problem": 2,
            "learner.max_staleness": max_staleness,
            "rollout.max_concurrent_samples": 16,
            "eval.problems": 0,
            "adapter_check.problems": 1,
            "adapter_check.tokens": 1,
        },
    )
    return estimate(config, costs, WORK, placement, at_once, together)


@pytest.mark.parametrize(
    ("costs", "placement", "at_once", "update_s"),
    [
        (COSTS, OWN, 4, 20.0),  # eight samples per update, four at once: two rounds of ten seconds
        (COSTS, OWN, 8, 10.0),
        (COSTS, replace(OWN, rollouts=(GPU,) * 2), 4, 10.0),
        (SLOW, OWN, 16, 60.0),
        (SLOW, replace(OWN, learners=(GPU,) * 2), 16, 30.0),
    ],
)
def test_the_slower_of_generation_and_learning_bounds_a_run(
    costs: Costs, placement: Placement, at_once: int, update_s: float
) -> None:
    assert of(costs, placement, at_once).update_s == pytest.approx(update_s, rel=0.05)


def test_synchronous_runs_add_both_up() -> None:
    found = of(SLOW, max_staleness=0)
    assert found.update_s == pytest.approx(70.0, rel=0.02)
    assert found.update_s == pytest.approx(found.generate_s + found.learn_s)


def test_a_shared_gpu_takes_as_long_as_both_unless_together_gains() -> None:
    slower, alike, faster = (of(SLOW, SHARED, together=together).update_s for together in (0.9, 1.0, 1.3))
    assert alike == pytest.approx(70.0, rel=0.1)
    assert faster < alike < slower


def test_staleness_hides_no_more_than_two_adapter_slots_allow() -> None:
    both = replace(COSTS, learn_s=0.005)  # 6 s of learning beside 10 s of generation
    times = [of(both, at_once=4, max_staleness=staleness).update_s for staleness in (0, 1, 2, 4)]
    assert times[0] > times[1] >= times[2] == pytest.approx(times[3])


def test_the_longest_of_many_is_longer_up_to_the_limit() -> None:
    spread = replace(WORK, spread=0.5)
    lengths = [longest_of(samples, spread, 10_000) for samples in (1, 2, 8, 128)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 100
    assert lengths[2] == pytest.approx(182, rel=0.03)  # the mean over 100,000 draws
    assert longest_of(128, spread, 150) == 150
    assert longest_of(128, WORK, 10_000) == 100


def quickstart(*settings: str) -> Estimate:
    return estimated(plan("quickstart", CPU, *settings))


def test_the_budget_holds_start_evaluations_and_updates() -> None:
    found, few = quickstart(), quickstart("budget.updates=3")
    used_s = found.start_s + 2 * found.evaluate_s + found.updates * found.update_s
    assert used_s <= found.spent_s == 480
    assert found.updates > found.updates_in_all(0, 180.0) > 0
    assert found.updates_in_all(7, 180.0) > 7 + found.updates_in_all(0, 180.0)  # the base model is evaluated once
    assert (found.updates_in_all(7, 479.0), few.updates_in_all(2, 180.0), few.updates) == (7, 3, 3)
    assert few.start_s + 3 * few.update_s < few.spent_s < 480


def test_validations_take_updates_from_the_budget_up_to_their_fraction() -> None:
    never, often, always = (
        quickstart(f"validation.every={every}", f"validation.share={share}")
        for every, share in ((0, 0.05), (2, 0.5), (1, 0.5))
    )
    assert always.updates < often.updates < never.updates
    short = replace(never, update_s=0.01)
    assert replace(short, config=always.config).updates == pytest.approx(short.updates / 2, abs=1)

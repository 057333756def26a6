from dataclasses import replace

import pytest

from actors.runtime.placement import Placement, Share
from conf.schema import Config
from launch.plan.simulation import Simulation, simulate
from launch.plan.time import Costs, Workload

COSTS = Costs(
    step_s=0.1,
    sample_s=0.0,
    prefill_s=0.0,
    learn_s=0.001,
    score_s=0.0,
    update_s=0.0,
    swap_s=0.0,
    verify_s=0.0,
    checkpoint_s=0.0,
    start_s=5.0,
)
"""An engine decodes ten tokens a second of each sample, however many; the learner takes a thousand a second."""

WORK = Workload(prompt=100.0, fresh=100.0, response=100.0, spread=0.0, varied=1.0)
"""So a group takes ten seconds to generate and 0.3 s to learn."""


def run(costs: Costs = COSTS, placement: Placement | None = None, at_once: int = 4, **learner: object) -> Simulation:
    """Ten updates of four groups of two samples; both engines and learner have processors of their own."""
    config = Config()
    config.learner.problems_per_update, config.rollout.samples_per_problem = 4, 2
    config.rollout.max_concurrent_samples = 16
    config.eval.problems, config.canary.problems, config.canary.tokens = 0, 1, 1
    config.budget.hours, config.budget.updates = 1000.0, 10
    for key, value in learner.items():
        setattr(config.learner, key, value)
    own = placement or Placement("cuda", (Share(gpus=1.0),), (Share(gpus=1.0),), 1)
    return simulate(config, costs, WORK, own, at_once)


def per_update(done: Simulation) -> float:
    first, last = done.rows[2], done.rows[-1]
    return (last["budget/spent_s"] - first["budget/spent_s"]) / (last["update"] - first["update"])


def test_generation_bounds_a_run_with_a_fast_learner() -> None:
    """Eight samples, four at once: two rounds of ten seconds."""
    assert per_update(run()) == pytest.approx(20.0, rel=0.05)
    assert per_update(run(at_once=8)) == pytest.approx(10.0, rel=0.1)


def test_learning_bounds_a_run_with_a_slow_learner() -> None:
    done = run(replace(COSTS, learn_s=0.05), at_once=16)
    assert per_update(done) == pytest.approx(4 * 300 * 0.05, rel=0.02)


def test_two_ranks_halve_what_the_learner_takes() -> None:
    ranks = Placement("cuda", (Share(gpus=1.0),), (Share(gpus=1.0),) * 2, 1)
    assert per_update(run(replace(COSTS, learn_s=0.05), ranks, 16)) == pytest.approx(30.0, rel=0.02)


def test_synchronous_runs_add_both_up_and_are_never_stale() -> None:
    done = run(replace(COSTS, learn_s=0.05), at_once=16, max_staleness=0)
    assert per_update(done) == pytest.approx(10.0 + 60.0, rel=0.02)
    assert {row["staleness/max"] for row in done.rows} == {0}


def test_a_shared_card_takes_as_long_as_both_together() -> None:
    shared = Placement("cuda", (Share(gpus=0.5),), (Share(gpus=0.5),), 1)
    assert per_update(run(replace(COSTS, learn_s=0.05), shared, 16)) == pytest.approx(10.0 + 60.0, rel=0.05)


def test_engines_share_the_groups() -> None:
    engines = Placement("cuda", (Share(gpus=1.0),) * 2, (Share(gpus=1.0),), 1)
    assert per_update(run(placement=engines)) == pytest.approx(10.0, rel=0.1)


def test_the_budget_includes_start_and_evaluation() -> None:
    config = Config()
    config.budget.minutes, config.eval.problems, config.eval.n = 30.0, 8, 1
    config.canary.problems = 1
    place = Placement("cuda", (Share(gpus=1.0),), (Share(gpus=1.0),), 1)
    done = simulate(config, COSTS, WORK, place, 64)
    assert done.spent_s <= 1800.0
    assert done.ledger["seconds"]["run"]["starting"] >= 5.0
    assert done.ledger["seconds"]["rollouts"]["evaluate"] >= 10.0
    assert done.updates == len(done.rows) > 10


def test_a_run_with_little_to_learn_from_goes_on() -> None:
    config = Config()
    config.learner.problems_per_update, config.eval.problems, config.canary.problems = 2, 0, 1
    config.budget.hours, config.budget.updates = 1000.0, 40
    config.guard.action = "stop"
    place = Placement("cuda", (Share(gpus=1.0),), (Share(gpus=1.0),), 1)
    assert simulate(config, COSTS, replace(WORK, varied=0.01), place, 64).updates == 40

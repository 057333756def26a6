"""Plasticity: the inspection of a run's adapter, with fakes."""

import json
from pathlib import Path

import pytest

from conf.settings import changed
from tests.actors.virtual_run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.config = changed(run.config, {"budget.updates": 2})
    return run


def test_summary_compares_with_the_base_on_the_same_responses(run: Run) -> None:
    outcome = run.go()
    assert outcome.plasticity
    assert outcome.plasticity.content == {
        "probe_entropy": {"before": 2.0, "after": 1.0, "change": -0.5},
        "kl_to_base": 0.5,
        "adapter_norm": {"q_proj": 1.0},
        "effective_rank": {"0.q_proj": 1.5},
        "rank": run.config.lora.rank,
    }
    (first, begun), (last, ended) = run.learner.inspected
    assert (first, last) == (0, 2)
    assert begun == ended
    assert [group.problem.id for group in begun] == [f"p{100 + number}" for number in range(4)]
    assert all(group.adapter is None for group in begun)


def test_a_resumed_run_inspects_the_responses_sampled_before(run: Run) -> None:
    run.go()
    sampled = [[7, 8], [9], [10], [11, 12]]
    (run.path / "probe.json").write_text(json.dumps(sampled))
    run.config = changed(run.config, {"budget.updates": 3})
    run.learner.version = 0  # of a process of its own
    run.go()
    assert [list(group.samples[0].token_ids) for group in run.learner.inspected[-1][1]] == sampled


@pytest.mark.parametrize("version", [0, 2])
def test_a_learner_that_dies_of_it_costs_no_result(run: Run, version: int) -> None:
    run.learner.deaths = {("inspect", version)}
    outcome = run.go()
    assert outcome.status == "completed"
    assert outcome.final is not None
    assert (outcome.plasticity is None) == (version == 2)


@pytest.mark.parametrize(("seconds", "known"), [(15.0, True), (1e6, False)])
def test_the_budget_leaves_time_for_it_and_is_kept(run: Run, seconds: float, known: bool) -> None:
    run.config = changed(run.config, {"budget.updates": None, "eval.problems": 0})
    run.learner.inspect_seconds = seconds
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert (outcome.plasticity is not None) == known
    assert run.spent <= run.seconds

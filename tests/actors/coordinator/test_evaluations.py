"""Plasticity: the inspection of a run's adapter, with fakes."""

import json
from dataclasses import replace
from itertools import groupby
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import Group, Inspection
from tests.actors.virtual_run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, {"budget.updates": 2})


def test_summary_compares_with_the_base_on_the_same_responses(run: Run):
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
    assert (first, last) == (1, 2)
    assert begun == ended
    assert [group.problem.id for group in begun] == [f"p{100 + number}" for number in range(4)]
    assert all(group.adapter is None for group in begun)


def test_a_resumed_run_inspects_the_responses_sampled_before(run: Run):
    run.go()
    sampled = [[7, 8], [9], [10], [11, 12]]
    (run.path / "reference_set.json").write_text(json.dumps(sampled))
    run.change({"budget.updates": 3})
    run.go()
    assert [list(group.samples[0].token_ids) for group in run.learner.inspected[-1][1]] == sampled


@pytest.mark.parametrize("updates", [1, 2])
def test_base_model_is_evaluated_between_the_first_two_batches(run: Run, updates: int):
    """So it is in a run of one update. No group is sampled meanwhile: it would count towards the duration."""
    run.change({"budget.updates": updates})
    run.learner.seconds = 1e-3  # the learner is done first
    assert run.go().status == "completed"
    requests = [each for each in run.engine.requests if each.sampling.samples > 1 or each.adapter is None]
    kinds = groupby("group" if each.adapter else "base" for each in requests)
    counts = [(kind, len(list(found))) for kind, found in kinds]
    assert counts == [("group", 2), ("base", 4 + 4 * 2), ("group", 2)][: updates + 1]
    base = run.folder.evaluation("base")
    assert base is not None
    assert base.n == 2


@pytest.mark.parametrize("version", [1, 2])
def test_a_learner_that_dies_of_it_costs_no_result(run: Run, version: int):
    run.learner.deaths = {("inspect", version)}
    outcome = run.go()
    assert outcome.status == "completed"
    assert run.eval.final is not None
    assert (outcome.plasticity is None) == (version == 2)


@pytest.mark.parametrize("broken", [{"entropy": nan}, {"kl_to_base": inf}, {"effective_rank": {"0.q_proj": nan}}])
def test_plasticity_is_null_if_a_number_is_not_finite(run: Run, broken: dict[str, Any]):
    inspect = run.learner.inspect

    async def inspect_broken(groups: tuple[Group, ...]) -> Inspection:
        return replace(await inspect(groups), **broken)

    run.learner.inspect = inspect_broken  # type: ignore[method-assign]
    outcome = run.go()
    assert (outcome.status, outcome.plasticity) == ("completed", None)


@pytest.mark.parametrize(("seconds", "known"), [(15.0, True), (1e6, False)])
def test_the_budget_leaves_time_for_it_and_is_kept(run: Run, seconds: float, known: bool):
    run.change({"budget.updates": None, "eval.problems": 0})
    run.learner.inspect_seconds = seconds
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert (outcome.plasticity is not None) == known
    assert run.spent <= run.seconds

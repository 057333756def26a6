"""The benchmarks that a run evaluates on beside its held-out problems, with fakes."""

import asyncio
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.coordinator import evaluations
from microbudget_rl.actors.coordinator.budget import EvaluationStep
from microbudget_rl.actors.coordinator.evaluations import Evaluations
from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import EvaluationSet, Group, Reward
from microbudget_rl.actors.storage.documents import EventKind, PolicyScores
from microbudget_rl.actors.storage.run_record import named
from tests.actors.virtual_run import Run
from tests.fakes import half_right, make_problem, make_reward

Calls = list[Callable[[str], object]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path, {"budget.updates": 2})
    run.benchmarks = (benchmark("sums-2.5", 3, 5), benchmark("hard", 1, 2))
    return run


def benchmark(name: str, n: int, problems: int) -> EvaluationSet:
    return EvaluationSet(name, n, tuple(make_problem(400 + number) for number in range(problems)))


def finals(run: Run) -> dict[str, PolicyScores]:
    return {name: each.final for name, each in run.eval.benchmarks.items() if each.final}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of problems of each evaluation, as it begins."""
    evaluate, found = evaluations.complete_samples, list[int]()

    async def note(attempts: Any, *policies: Any, **more: Any) -> None:
        found.append(len(policies[0].problems))
        await evaluate(attempts, *policies, **more)

    monkeypatch.setattr(evaluations, "complete_samples", note)
    return found


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Functions that are called with the name of each evaluation, before it."""
    measure, calls = Evaluations._measure, Calls()

    async def call(self: Any, policy: str, each: EvaluationSet, *more: Any) -> Any:
        for note in calls:
            note(named(policy, each.name))
        await asyncio.sleep(0)
        return await measure(self, policy, each, *more)

    monkeypatch.setattr(Evaluations, "_measure", call)
    return calls


@pytest.mark.parametrize(("start", "heldout"), [("", 4), ("sft", 4), ("", 0)])
def test_base_and_result_are_measured_on_every_benchmark(run: Run, start: str, heldout: int):
    run.change({"lora.start_from": start, "eval.problems": heldout})
    run.learner.deaths = {("accumulate", 1)}  # nothing is measured again
    run.go()
    found = run.eval.benchmarks
    policies = {"base", "final"}
    assert {name: each.content.keys() for name, each in found.items()} == {"hard": policies, "sums-2.5": policies}
    for each, policy in product(run.benchmarks, policies):
        scores, rows = getattr(found[each.name], policy), run.folder.samples(f"eval-{policy}-{each.name}")
        assert (scores.n, scores.problems, len(rows)) == (each.n, len(each.problems), each.n * len(each.problems))
    assert getattr(run.eval.final, "problems", 0) == heldout
    assert {row.version for row in run.folder.samples("eval-warm")} == ({0} if start else set())
    assert run.engine.base_samples - heldout * 2 - 5 * 3 - 2 in (4, 7), "the reference set"


def test_a_resumed_run_measures_only_what_is_missing(run: Run, measured: list[int], before: Calls):
    def crash(name: str) -> None:
        if name == "base-hard":
            raise OSError("killed")

    before.append(crash)
    assert run.fail().args == ("killed",)
    assert run.folder.scores("base").keys() == {"", "sums-2.5"}
    before.clear()
    run.go()
    assert measured == [4, 5, 2, 4, 5, 2], "the last three are of the result"


@pytest.mark.parametrize(("problems", "whole"), [(6, True), (1000, False)])
def test_the_budget_is_kept_and_the_held_out_problems_come_first(run: Run, problems: int, whole: bool):
    run.change({"budget.updates": None})
    run.benchmarks, run.engine.most_at_once = (benchmark("long", 2, problems),), 1
    outcome = run.go()
    assert (outcome.status, getattr(run.eval.final, "n", 0)) == ("budget_exhausted", 2)
    assert (getattr(finals(run).get("long"), "n", 0) == 2) == whole
    assert (run.learner.version > 1, run.spent <= run.seconds) == (True, True)


def test_benchmarks_are_cut_to_the_problems_that_the_base_had_time_for_and_one_without_any_is_named(
    run: Run, measured: list[int]
):
    """It is tried once and reserves nothing."""
    run.benchmarks, run.engine.most_at_once = (benchmark("long", 2, 1000), benchmark("later", 1, 2)), 1
    run.learner.deaths = {("accumulate", 1)}
    run.go()
    first = run.folder.scores("base")["long"].problems
    assert {name: scores.problems for name, scores in finals(run).items()} == {"long": first}
    assert measured == [4, 1000, 4, first], "no time was left for the other"
    assert not run.coordinator._evaluations._base_due
    assert not run.coordinator._budget.knows(EvaluationStep("later"))
    (missed,) = (event for event in run.folder.events() if event.kind is EventKind.CUT_OFF)
    assert missed.event == "evaluation on later cut off"
    measured.clear()
    run.change({"budget.updates": 3})
    run.go()
    assert 1000 not in measured


def test_the_last_policy_comes_before_the_benchmarks(run: Run, before: Calls):
    names = list[str]()
    before.append(names.append)
    more = {"validation.every": 1, "validation.share": 1.0, "validation.problems": 2, "budget.updates": 4}
    run.change(more)

    def rewards(group: Group) -> tuple[Reward, ...]:
        good = group.adapter is not None and group.adapter.version in (1, 2)
        return half_right(group) if len(group.samples) > 1 else (make_reward(float(good)),)

    run.verifier.rewards_of = rewards
    run.go()
    assert names[3:] == ["final", "last", "final-sums-2.5", "final-hard"]


def test_a_stop_during_the_last_benchmark_keeps_what_was_measured_until_a_resume(run: Run, before: Calls):
    before.append(lambda name: name == "final-hard" and run.coordinator._stopping.stop("SIGTERM"))
    outcome = run.go()
    assert (outcome.status, finals(run).keys()) == ("interrupted", {"sums-2.5"})
    assert run.eval.final
    run.go(0.0)
    assert (run.eval.final, finals(run), run.folder.samples("eval-final")) == (None, {}, [])


@pytest.mark.parametrize(
    ("where", "kept"), [("", None), ("sums-2.5", set()), ("hard", {"sums-2.5"})], ids=["result", "first", "second"]
)
@pytest.mark.parametrize("heldout", [4, 0])
def test_an_engine_that_is_given_up_during_the_benchmarks_costs_no_result(
    run: Run, before: Calls, where: str, kept: set[str] | None, heldout: int
):
    """The evaluation of the result itself is needed."""
    run.change({"eval.problems": heldout})
    dead = list[str]()
    before.append(lambda name: name == named("final", where) and dead.append(name))

    async def die(*_: Any) -> None:
        if dead:
            raise ActorDied("rollout-0 died 3 times in a row")

    run.engine.before = die  # type: ignore[method-assign]
    if kept is None and heldout:
        assert isinstance(run.fail(), ActorDied)
        return
    outcome = run.go()
    assert outcome.status == "completed"
    assert getattr(run.eval.final, "n", None) == (2 if heldout else None)
    assert finals(run).keys() == (kept or set())
    events = [event.event for event in run.folder.events() if event.kind is EventKind.CUT_OFF]
    assert (events, run.coordinator.ledger.counts["warnings/evaluation"]) == (["evaluation cut off"], 1)
    assert run.spent <= run.seconds

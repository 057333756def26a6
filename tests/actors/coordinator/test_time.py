"""The coordinator and time: the budget, stops and their grace."""

import asyncio
from typing import Any

import pytest

from microbudget_rl.actors.errors import Interrupted
from microbudget_rl.actors.messages import Request
from tests.actors.virtual_run import Run


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_run_spends_its_budget_and_not_more(run: Run, start: float):
    """A slow start neither cuts the evaluation of the base model short nor enlarges the reserve for the last one."""
    run.engine.start_seconds = start * run.seconds
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert 0.8 * run.seconds < run.spent <= run.seconds
    assert getattr(run.folder.evaluation("base"), "n", 0) == 2
    assert run.eval.final is not None
    assert (run.eval.final.n, run.eval.final.pass_at_1) == (2, 1.0)


def test_nothing_is_started_or_waited_for_that_cannot_end_in_time(run: Run):
    """Groups of 30 s: training ends when the next batch could not be learned from, and the rest is not idled away."""
    run.change({"learner.max_staleness": 0, "eval.problems": 0})
    run.engine.seconds_of = lambda index: 30.0 if index >= 0 else 1.0
    run.go()
    assert run.learner.version == 3
    assert len(run.engine.served) == 6
    assert run.spent < 100.0


@pytest.mark.parametrize(("slow", "problems", "n"), [("trained", 4, 1), ("base", 16, 2)])
def test_where_not_one_round_fits_all_policies_answer_the_same_first_problems(
    run: Run, slow: str, problems: int, n: int
):
    """One at a time, and so slowly that a round would take longer than is left: few begin at once."""
    run.change({"eval.problems": problems, "eval.n": n})
    run.engine.most_at_once = 1

    async def slower(request: Request) -> None:
        adapter = request.adapter
        asked = {"trained": request.sampling.samples == 1 and adapter and adapter.version, "base": adapter is None}
        run.engine.seconds = {"trained": 5.0, "base": 12.0}[slow] if asked[slow] and request.index >= 0 else 1.0

    run.engine.before = slower  # type: ignore[method-assign]
    run.go()
    final = run.eval.final
    assert final
    assert (1 <= final.problems < 4, final.n) == (True, n)
    answered = [{row.problem for row in run.folder.samples(f"eval-{policy}")} for policy in ("base", "final")]
    assert (answered[0] == answered[1]) == (slow == "base")
    if slow == "trained":
        begun = [each for each in run.engine.requests if each.sampling.samples == 1 and each.adapter]
        assert sum(each.index >= 0 for each in begun) <= final.problems + 1
    assert run.spent <= run.seconds


def test_stop_ends_the_run_with_a_checkpoint(run: Run):
    outcome = run.go(30.0)
    assert (outcome.status, outcome.reason, run.eval.final) == ("interrupted", "SIGTERM", None)
    assert run.latest == f"update-{run.learner.version:06d}"
    assert 30.0 <= run.spent < 30.0 + run.config.budget.grace_s


def test_stop_during_the_first_evaluation_leaves_at_once(run: Run):
    run.engine.seconds, run.seconds = 1000.0, 100_000.0
    assert run.go(30.0).status == "interrupted"
    assert run.spent < 40.0


def test_slow_evaluation_of_the_base_model_leaves_time_to_train(run: Run):
    """Twice its duration would be more than the whole budget."""
    run.engine.seconds = 8.0
    run.change({"eval.n": 10})
    run.go()
    assert run.learner.version >= 2
    assert run.eval.final is not None
    assert run.spent <= run.seconds


@pytest.mark.parametrize(
    ("late", "share", "updates"), [("accumulate", 0.0, 0), ("accumulate", 0.6, 5), ("generate_on_each", 0.6, 5)]
)
def test_last_update_that_outlasts_the_budget_is_lost_alone(run: Run, late: str, share: float, updates: int):
    """A gradient, or an engine's check, takes too long after this share of the budget; saving takes 10 s."""
    owner = run.learner if late == "accumulate" else run.engine
    call = getattr(owner, late)

    async def slow(*arguments: Any) -> Any:
        result = await call(*arguments)
        if run.spent_so_far >= share * run.seconds:
            await asyncio.sleep(run.seconds)
        return result

    setattr(owner, late, slow)
    run.learner.save_seconds = 10.0
    run.change({"checkpoint.every": 1000, "eval.problems": 0})
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert "lost" in outcome.reason
    assert run.spent <= run.seconds
    assert run.coordinator.updates >= updates
    if updates:
        assert run.latest == f"update-{run.coordinator.updates:06d}"


def test_update_whose_validation_is_cut_off_has_its_row(run: Run):
    run.change({"validation.every": 1})
    chosen = {problem.id for problem in run.problems.selection}

    async def hang(request: Request) -> None:
        if request.problem.id in chosen:
            await asyncio.sleep(1e6)

    run.engine.before = hang  # type: ignore[method-assign]
    assert run.go().status == "budget_exhausted"
    assert run.updates == [1]


@pytest.mark.parametrize("slow", ["start", "save"])
def test_start_or_checkpoint_that_takes_too_long_does_not_break_the_budget(run: Run, slow: str):
    if slow == "start":
        run.engine.start_seconds = 10_000.0
    else:
        run.learner.save_seconds = 10_000.0
    run.change({"checkpoint.every": 1000})
    assert run.go().status == "budget_exhausted"
    assert run.spent <= run.seconds


@pytest.mark.parametrize(
    ("learn", "save", "stops", "latest"),
    [(10_000.0, 0.0, (100.0,), 165.0), (30.0, 0.0, (200.0, 201.0), 202.0), (55.0, 50.0, (20.0,), 80.0)],
    ids=["update longer than the grace", "second stop", "update and checkpoint share one grace"],
)
def test_steps_after_a_stop_end_with_the_grace(
    run: Run, learn: float, save: float, stops: tuple[float, ...], latest: float
):
    run.seconds = 100_000.0
    run.learner.seconds, run.learner.save_seconds = learn, save
    run.change({"budget.grace_s": 60.0})
    assert isinstance(run.fail(*stops), Interrupted)
    assert run.spent <= latest
    if len(stops) == 2:
        assert run.latest == "update-000006"

"""The benchmarks that a run evaluates on beside its held-out problems, with fakes."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from actors.evaluation.evaluator import Evaluator
from actors.messages import Exam
from actors.storage.folders import foreign
from actors.storage.layout import RUN
from conf.settings import changed
from tests.actors.virtual_run import Run
from tests.fakes import make_problem


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.config = changed(run.config, {"budget.updates": 2})
    run.exams = (exam("sums-2.5", 3, 5), exam("hard", 1, 2))
    return run


def exam(name: str, n: int, problems: int) -> Exam:
    return Exam(name, n, tuple(make_problem(400 + number) for number in range(problems)))


@pytest.mark.parametrize(("start", "heldout"), [("", 4), ("sft", 4), ("", 0)])
def test_every_policy_but_the_last_is_measured_on_every_exam(run: Run, start: str, heldout: int) -> None:
    run.config = changed(run.config, {"lora.start_from": start, "eval.problems": heldout})
    run.learner.deaths = {("accumulate", 1)}  # nothing is measured again
    outcome = run.go()
    found = run.folder.evaluations(final=outcome.exams).benchmarks
    policies = {"base", "final", *["warm"] * bool(start)}
    assert {name: each.content.keys() for name, each in found.items()} == {"hard": policies, "sums-2.5": policies}
    for each, policy in product(run.exams, policies):
        scores, rows = getattr(found[each.name], policy), run.folder.samples(f"eval-{policy}-{each.name}")
        assert (scores.n, scores.problems, len(rows)) == (each.n, len(each.problems), each.n * len(each.problems))
    assert getattr(outcome.final, "problems", 0) == heldout
    assert run.engine.base_samples - heldout * 2 - 5 * 3 - 2 in (4, 7), "the reference set"
    assert foreign(run.path, RUN) is None


def test_a_resumed_run_measures_only_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, measured = Evaluator.evaluate, list[int]()

    async def crash_later(self: Any, *policies: Any, **more: Any) -> None:
        measured.append(len(policies[0].problems))
        if measured == [4, 5, 2]:
            raise OSError("killed")
        await evaluate(self, *policies, **more)

    monkeypatch.setattr(Evaluator, "evaluate", crash_later)
    assert run.fail().args == ("killed",)
    assert run.folder.scores("base").keys() == {"", "sums-2.5"}
    run.go()
    assert measured[3:] == [2, 4, 5, 2], "the last three are of the result"


@pytest.mark.parametrize(("problems", "whole"), [(6, True), (1000, False)])
def test_the_budget_is_kept_and_the_held_out_problems_come_first(run: Run, problems: int, whole: bool) -> None:
    run.config = changed(run.config, {"budget.updates": None})
    run.exams, run.engine.most_at_once = (exam("long", 2, problems),), 1
    outcome = run.go()
    assert (outcome.status, getattr(outcome.final, "n", 0)) == ("budget_exhausted", 2)
    assert ("long" in outcome.exams and outcome.exams["long"].n == 2) == whole
    assert (run.learner.version > 1, run.spent <= run.seconds) == (True, True)

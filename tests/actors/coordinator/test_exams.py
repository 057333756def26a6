"""The benchmarks that a run evaluates on beside its held-out problems, with fakes."""

from pathlib import Path

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


@pytest.mark.parametrize("start", ["", "sft"])
def test_every_policy_but_the_last_is_measured_on_every_exam(run: Run, start: str) -> None:
    run.config = changed(run.config, {"lora.start_from": start, "validation.every": 1, "validation.problems": 2})
    run.learner.deaths = {("accumulate", 1)}  # nothing is measured again
    outcome = run.go()
    found = run.folder.evaluations(final=outcome.exams)
    policies = {"base", "final", *["warm"] * bool(start)}
    assert {name: each.content.keys() for name, each in found.benchmarks.items()} == dict.fromkeys(
        ("hard", "sums-2.5"), policies
    )
    for name, n, problems in (("sums-2.5", 3, 5), ("hard", 1, 2)):
        for policy in policies:
            scores, rows = getattr(found.benchmarks[name], policy), run.folder.samples(f"eval-{policy}-{name}")
            assert (scores.n, scores.problems, len(rows)) == (n, problems, n * problems)
            assert len(scores.ci95) == 2
    assert outcome.final
    assert (outcome.final.n, outcome.final.problems) == (2, 4)
    assert run.engine.base_samples == 4 + 4 * 2 + 5 * 3 + 2  # with the reference set
    assert foreign(run.path, RUN) is None


def test_without_exams_the_summary_is_as_before(run: Run) -> None:
    run.exams = ()
    outcome = run.go()
    assert run.folder.evaluations(final=outcome.exams).content.keys() == {"base"}


def test_exams_are_measured_without_held_out_problems(run: Run) -> None:
    run.config = changed(run.config, {"eval.problems": 0})
    outcome = run.go()
    assert (outcome.final, outcome.exams.keys()) == (None, {"sums-2.5", "hard"})


def test_a_resumed_run_measures_only_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, measured = Evaluator.evaluate, []

    async def crash_later(self: Evaluator, *policies: object, **more: object) -> None:
        measured.append(len(policies[0].problems))  # type: ignore[attr-defined]
        if measured == [4, 5, 2]:
            raise OSError("killed")
        await evaluate(self, *policies, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "evaluate", crash_later)
    assert run.fail().args == ("killed",)
    assert run.folder.scores("base").keys() == {"", "sums-2.5"}
    run.go()
    assert measured[3:] == [2, 4, 5, 2], "the last three are of the result"


def test_the_budget_holds_time_for_exams_and_is_kept(run: Run) -> None:
    run.config = changed(run.config, {"budget.updates": None})
    run.exams, run.engine.most_at_once = (exam("long", 2, 6),), 1
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert outcome.final
    assert (outcome.final.problems, outcome.exams["long"].n, outcome.exams["long"].problems) == (4, 2, 6)
    assert run.spent <= run.seconds


def test_an_exam_that_does_not_fit_is_cut_short_after_the_held_out_problems(run: Run) -> None:
    run.exams, run.engine.most_at_once = (exam("endless", 1, 1000), exam("late", 1, 5)), 1
    outcome = run.go()
    assert outcome.final
    assert (outcome.final.n, outcome.final.problems) == (2, 4)
    assert outcome.exams.keys() <= {"endless"}
    assert run.learner.version == 2
    assert run.spent <= run.seconds

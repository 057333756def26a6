import time
from pathlib import Path

import pytest

from actors.messages import Problem, ProblemSet
from actors.storage.checkpoints import link, write_state
from actors.storage.documents import CoordinatorState, EventKind, Origin, Planned
from actors.storage.folders import mark
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.load import dump, load
from conf.settings import changed
from launch.hardware.machine import detect
from launch.plan.plan import make_plan
from launch.session.preparation import prepare, problem_counts
from rewards.problems.rows import DUPLICATE
from tests.launch.plan.plans import estimated

NONE = ProblemSet((), (), {})


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.models.files.locate", lambda model: "nowhere")
    monkeypatch.setattr("actors.models.adapters.pin_of", lambda model: "a" * 40)
    monkeypatch.setattr("learner.model.architecture.check_architecture", lambda config, path: None)
    monkeypatch.setattr("actors.models.adapters.check_adapter", lambda config, path: None)
    monkeypatch.setattr("rewards.problems.loading.load_problems", lambda config, tokenizer: NONE)
    monkeypatch.setattr("rewards.problems.candidates.load_with_candidates", lambda config, tokenizer: NONE)
    monkeypatch.setattr("actors.models.files.load_tokenizer", lambda folder, path: None)


def test_a_warm_start_that_is_over_needs_its_source_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> ProblemSet:
        raise BadInput("gone")

    monkeypatch.setattr("rewards.problems.candidates.load_with_candidates", gone)
    config = load(["conf=quickstart", "dashboard.port=0", "model.dtype=float32", "warm_start.source=file:gone.jsonl"])
    checkpoint = tmp_path / "checkpoints" / "update-000003"
    mark(tmp_path, "run")
    checkpoint.mkdir(parents=True)
    link(checkpoint.parent / "latest", checkpoint)
    plan = make_plan(config, detect("cpu"))
    for over, begun in ((True, False), (False, True), (True, True)):
        write_state(checkpoint, CoordinatorState(warm_start_over=over))
        (tmp_path / "config.yaml").unlink(missing_ok=True)
        if begun:
            (tmp_path / "config.yaml").write_text(dump(changed(config, {"model.pin": "a" * 40})))
        if over and begun:
            assert prepare(plan, tmp_path, started_at=0.0).problems is NONE
        else:
            with pytest.raises(BadInput, match="gone"):
                prepare(plan, tmp_path, started_at=0.0)


def test_time_and_model_are_kept_from_the_claim_on(tmp_path: Path) -> None:
    mark(tmp_path, "run")
    (tmp_path / "spent.json").write_text('{"spent_s": 12.5}')
    config = load(["conf=quickstart", "dashboard.port=0", "model.dtype=float32"])
    (tmp_path / "config.yaml").write_text(dump(config))
    plan = make_plan(config, detect("cpu"))
    expected = estimated(plan)
    RunFolder(tmp_path).write_origin(Origin(command="as begun", planned=Planned(updates=9, update_s=1, start_s=1)))
    note = (EventKind.FALLBACK, "no client", "NVIDIA's MPS")
    request = prepare(plan, tmp_path, started_at=time.monotonic() - 30, notes=[note])
    begun = RunRecord(tmp_path).origin()
    assert begun.command == "as begun"
    assert begun.planned
    assert begun.planned.updates == expected.updates_in_all(0, 12.5)  # of the plan that is in force now
    assert request.spent_before == 12.5
    assert request.config.model.pin == RunRecord(tmp_path).config().model.pin == "a" * 40
    assert 42.5 <= RunRecord(tmp_path).spent <= request.spent
    (event,) = RunRecord(tmp_path).events()
    assert (event.kind, event.detail, event.event) == (EventKind.FALLBACK, "no client", "NVIDIA's MPS falls back")


def test_a_generators_repetitions_are_no_filtered_rows_in_a_mixture_either() -> None:
    mixed = load(["conf=quickstart", "data.mixture=[{source: file:a.csv}, {source: 'reasoning_gym:chain_sum'}]"])
    said = problem_counts(ProblemSet((), (), {DUPLICATE: 7}), mixed)
    assert DUPLICATE not in said
    assert "7 generated" in said


@pytest.mark.parametrize(("every", "told"), [(0, False), (5, True)])
def test_fewer_problems_that_choose_than_asked_for_are_told(every: int, told: bool) -> None:
    config = load(["conf=quickstart", f"validation.every={every}", "validation.problems=3"])
    for number in (3, 2):
        selection = tuple(Problem(str(each), "", (1,), "") for each in range(number * bool(every)))
        said = problem_counts(ProblemSet((), (), {}, selection=selection), config)
        assert ("not 3" in said) == (told and number == 2)

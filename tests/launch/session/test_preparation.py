import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import Problem, ProblemSet
from microbudget_rl.actors.storage.checkpoints import link, write_state
from microbudget_rl.actors.storage.documents import CoordinatorState, EventKind, Origin, Planned
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.load import dump, load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.session import preparation
from microbudget_rl.launch.session.preparation import prepare, problem_counts
from microbudget_rl.rewards.problems.rows import DUPLICATE
from tests.launch.plan.plans import estimated

NONE = ProblemSet((), (), {})


@pytest.fixture(autouse=True)
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Replaces the search for model and data. Returns for each whether the warm start counted as over."""
    asked = list[bool]()

    def find_and_check(config: Config, warmed: bool) -> tuple[Config, str, ProblemSet, Sequence[str]]:
        asked.append(warmed)
        return changed(config, {"model.pin": "a" * 40}), "nowhere", NONE, ()

    monkeypatch.setattr(preparation, "find_and_check", find_and_check)
    return asked


@pytest.mark.parametrize(("over", "begun"), [(True, False), (False, True), (True, True)])
def test_a_warm_start_that_is_over_needs_its_source_no_more(
    over: bool, begun: bool, warmed: list[bool], tmp_path: Path
):
    config = load(["conf=quickstart", "dashboard.port=0", "model.dtype=float32", "warm_start.source=file:gone.jsonl"])
    checkpoint = tmp_path / "checkpoints" / "update-000003"
    mark(tmp_path, "run")
    checkpoint.mkdir(parents=True)
    link(checkpoint.parent / "latest", checkpoint)
    write_state(checkpoint, CoordinatorState(warm_start_over=over))
    if begun:
        (tmp_path / "config.yaml").write_text(dump(changed(config, {"model.pin": "a" * 40})))
    prepare(make_plan(config, detect("cpu")), tmp_path, started_at=0.0, missing={})
    assert warmed == [over and begun]
    assert RunRecord(tmp_path).origin().command  # also of a run that was killed before it was written


def test_time_and_model_are_kept_from_the_claim_on(tmp_path: Path):
    mark(tmp_path, "run")
    (tmp_path / "spent.json").write_text('{"spent_s": 12.5}')
    config = load(["conf=quickstart", "dashboard.port=0", "model.dtype=float32"])
    (tmp_path / "config.yaml").write_text(dump(config))
    plan = make_plan(config, detect("cpu"))
    expected = estimated(plan)
    RunFolder(tmp_path).write_origin(Origin(command="as begun", planned=Planned(updates=9, update_s=1, start_s=1)))
    request = prepare(plan, tmp_path, started_at=time.monotonic() - 30, missing={"NVIDIA's MPS": "no client"})
    begun = RunRecord(tmp_path).origin()
    assert begun.command == "as begun"
    assert begun.planned
    assert begun.planned.updates == expected.updates_in_all(0, 12.5)  # of the plan that is in force now
    assert request.spent_before == 12.5
    assert request.config.model.pin == RunRecord(tmp_path).config().model.pin == "a" * 40
    assert 42.5 <= RunRecord(tmp_path).spent <= request.spent
    (event,) = RunRecord(tmp_path).events()
    assert (event.kind, event.detail, event.event) == (EventKind.FALLBACK, "no client", "NVIDIA's MPS falls back")


@pytest.mark.parametrize("chosen", [3, 2])
def test_counts_of_problems_name_what_is_missing_and_no_repetitions_of_a_generator(chosen: int):
    mixture = "data.mixture=[{source: file:a.csv}, {source: 'reasoning_gym:chain_sum'}]"
    config = load(["conf=quickstart", mixture, "validation.every=5", "validation.problems=3"])
    selection = tuple(Problem(str(each), "", (1,), "") for each in range(chosen))
    said = problem_counts(ProblemSet((), (), {DUPLICATE: 7}, selection=selection), config)
    assert ("not 3" in said) == (chosen < 3)
    assert DUPLICATE not in said
    assert f"{7 + chosen} generated" in said

"""The result of a run: the version that the validations choose, and what is measured of it at the end."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.coordinator.context import result_of
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import AdapterRef, Group, Request, Reward, Scores
from microbudget_rl.actors.storage.checkpoints import Checkpoints
from microbudget_rl.actors.storage.documents import Result
from tests.actors.virtual_run import Run
from tests.fakes import half_right, make_reward

UPDATES = 9


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Validates every second version and the last one, on two problems. Versions 4 to 6 solve all, others half."""
    validation = {"validation.every": 2, "validation.problems": 2, "validation.share": 1.0}
    run = Run(tmp_path, validation | {"budget.updates": UPDATES, "checkpoint.every": 5})

    def rewards(group: Group) -> tuple[Reward, ...]:
        good = group.adapter is not None and 4 <= group.adapter.version <= 6
        return half_right(group) if len(group.samples) > 1 else (make_reward(float(good or group.index % 2)),)

    run.verifier.rewards_of = rewards
    return run


def result(run: Run) -> Result:
    found = result_of(run.folder)
    assert found
    return found


def test_chosen_version_is_the_result_and_both_are_measured(run: Run):
    run.go()
    assert run.series("validation/pass@1") == {2: 0.5, 4: 1.0, 6: 1.0, 8: 0.5, 9: 0.5}
    assert {*run.series("validation/problems").values()} == {2.0}
    assert (result(run).update, result(run).validation) == (6, 1.0)
    assert run.eval.final
    assert run.eval.last
    assert (run.eval.final.pass_at_1, run.eval.last.pass_at_1) == (1.0, 0.5)
    versions = {name: {row.version for row in run.folder.samples(f"eval-{name}")} for name in ("final", "last")}
    assert versions == {"final": {6}, "last": {UPDATES}}
    single = (each for each in run.engine.requests if each.sampling.samples == 1 and each.index >= 0 and each.adapter)
    assert {each.problem.id for each in single if each.adapter.version in (2, 8)} == {"p200", "p201"}
    assert {"p200", "p201"}.isdisjoint(row.problem for row in run.folder.samples("eval-final"))
    kept = sorted(path.name for path in (run.path / "checkpoints").glob("update-*"))
    assert kept == ["update-000006", "update-000009"]
    assert run.ledger["learner"]["validate"] > 0


def test_the_reward_chooses_where_it_does_not_weigh_answers(run: Run):
    """Below zero, too, and although each version has the same pass@1."""
    run.change({"reward.accuracy": 0.0, "reward.format": 1.0})

    def rewards(group: Group) -> tuple[Reward, ...]:
        if len(group.samples) > 1 or group.adapter is None:
            return half_right(group)[: len(group.samples)]
        return (replace(make_reward(1.0), total=-abs(group.adapter.version - 4.0)),)

    run.verifier.rewards_of = rewards
    run.go()
    assert run.series("validation/reward") == {2: -2.0, 4: 0.0, 6: -2.0, 8: -4.0, 9: -5.0}
    assert (result(run).update, result(run).validation) == (6, -2.0), "the mean of 4 and 6 equals that of 2 and 4"


@pytest.mark.parametrize("all_of_them", [True, False])
def test_rewards_that_are_not_known_choose_nothing(run: Run, all_of_them: bool):
    """Nor does the mean of the few that are known."""
    run.change({"reward.accuracy": 0.0, "reward.format": 1.0, "validation.problems": 3})

    def rewards(group: Group) -> tuple[Reward, ...]:
        known = group.problem.id == "p200" and not all_of_them
        return tuple(replace(each, partial=not known) for each in half_right(group)[: len(group.samples)])

    run.verifier.rewards_of = rewards
    run.go()
    assert {*run.series("validation/problems").values()} == {float(not all_of_them)}
    assert not any({"validation/reward", "validation/pass@1"} & row.keys() for row in run.rows)
    assert (result(run).update, result(run).validation) == (UPDATES, None)


def test_last_version_is_validated_and_may_be_the_result(run: Run):
    """It has had no validation of its own in the training."""
    run.change({"budget.updates": 5})
    run.go()
    assert [*run.series("validation/pass@1")] == [2, 4, 5]
    assert (result(run).update, run.eval.last) == (5, None)
    assert run.eval.final
    assert run.eval.final.pass_at_1 == 1.0
    run.change({"budget.updates": 6})
    run.go()
    assert [*run.series("validation/pass@1")] == [2, 4, 5, 6]


def test_a_version_is_the_result_though_saving_it_and_all_after_its_checkpoint_is_cut_off(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    """By the end of the training, and by that of the time for the last validation."""
    run.change({"budget.updates": None, "validation.every": 1})
    write, saved = run.learner.save, list[str]()

    async def save(folder: str) -> None:
        saved.append(folder)
        await (write(folder) if len(saved) > 1 else asyncio.Event().wait())

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    run.learner.save = save  # type: ignore[method-assign]
    monkeypatch.setattr(Checkpoints, "prune", hang)
    assert run.go().status == "budget_exhausted"
    assert len(saved) == 2
    assert (result(run).update, result(run).validation) == (1, 0.5)
    assert run.spent <= run.seconds


def test_without_validation_the_result_is_the_last(run: Run):
    run.change({"validation.every": 0})
    run.go()
    assert (result(run).update, result(run).validation, run.eval.last) == (UPDATES, None, None)
    best = run.path / "checkpoints" / "best"
    assert not best.exists()
    best.symlink_to(f"update-{UPDATES:06d}")  # a user's
    run.change({"budget.updates": UPDATES + 1})
    run.go()
    assert (best.resolve().name, result(run).update) == (f"update-{UPDATES:06d}", UPDATES)
    assert "checkpoints/best" in result(run).why


@pytest.mark.parametrize(("share", "validated"), [(0.001, [2, UPDATES]), (0.15, [2, 6, UPDATES])])
def test_only_the_last_version_is_validated_beyond_the_share_of_the_time(run: Run, share: float, validated: list[int]):
    """So an early validation, of which no duration was known, is not alone."""
    run.change({"validation.share": share})
    run.go()
    assert [*run.series("validation/pass@1")] == validated


@pytest.mark.parametrize("lost", [True, False])
def test_where_the_chosen_checkpoint_is_gone_the_next_is_the_result(run: Run, lost: bool):
    run.go()
    chosen = run.path / "checkpoints" / "update-000006"
    if lost:
        chosen.rename(run.path / "elsewhere")
    else:
        (chosen / "adapter" / "adapter_config.json").write_text("damaged")
    run.change({"budget.updates": UPDATES + 1})
    run.go()
    assert result(run).update == UPDATES + 1, "of 9 and 10, which are equal"
    assert "checkpoint is left" in result(run).why
    assert run.eval.last is None


def test_patience_ends_the_run_with_its_budget_unspent(run: Run):
    run.change({"validation.patience": 2, "budget.updates": 100})
    outcome = run.go()
    assert (outcome.status, run.coordinator.updates) == ("completed", 10)
    assert "validation.patience=2" in outcome.reason
    assert result(run).update == 6
    assert run.spent < run.seconds / 2
    assert run.go().status == "completed", "a resume ends at once"
    assert run.coordinator.updates == 10


@pytest.mark.parametrize("moved", [True, False])
def test_chosen_adapter_that_is_not_applied_halts_the_run(run: Run, moved: bool):
    """The fake engine responds in the same way under every adapter."""

    async def score(groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return tuple(tuple(Scores((-1.0,), (-9.0 if moved else -1.0,)) for _ in each.samples) for each in groups)

    run.learner.score = score  # type: ignore[method-assign]
    if moved:
        assert isinstance(cause := run.fail(), Halted)
        assert "update-000006" in str(cause)
    else:
        assert run.go().status == "completed"


@pytest.mark.parametrize(
    ("slow", "n", "whole", "last"),
    [(0.0, 2, True, True), (3.0, 2, True, False), (5.0, 10, False, False), (1000.0, 2, False, False)],
)
def test_result_is_measured_before_the_last_policy_and_the_budget_is_kept(
    run: Run, slow: float, n: int, whole: bool, last: bool
):
    """The engines take longer for the chosen adapter, once it comes from its checkpoint. Rounds in time count."""
    run.change({"budget.updates": None, "eval.n": n})
    load = run.engine.load

    async def late(adapter: AdapterRef) -> None:
        await asyncio.sleep(slow if adapter.path != "nowhere" else 0.0)
        await load(adapter)

    async def later(request: Request) -> None:
        adapter = request.adapter
        await asyncio.sleep(slow if adapter and adapter.path != "nowhere" and request.index >= 0 else 0.0)

    run.engine.load, run.engine.before = late, later  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert run.spent <= run.seconds
    assert (run.eval.final is None) == (slow == 1000.0)
    assert run.eval.final is None or 0 < run.eval.final.n <= n
    assert (run.eval.final is not None and run.eval.final.n == n) == whole
    assert (run.eval.last is not None) == last
    assert result(run).update == 6

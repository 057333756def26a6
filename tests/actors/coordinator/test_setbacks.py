"""The coordinator after a setback: a resume, a dead learner, a collapse."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.errors import ActorDied, Halted
from microbudget_rl.actors.messages import Batch, Group, Request, Reward
from microbudget_rl.actors.storage import checkpoints, run_folder
from tests.actors.virtual_run import Run, collapsing
from tests.fakes import half_right, make_reward


def test_resumed_run_repeats_and_skips_nothing(tmp_path: Path):
    """No problem, no evaluation of the base model, no second of the budget."""
    first, second = (Run(tmp_path, seconds=100.0) for _ in range(2))
    first.change({"budget.updates": 4})
    first.go()
    second.go()
    used = [g.index for run in (first, second) for batch in run.learner.batches for g in batch.groups]
    assert sorted(used) == list(range(len(used)))
    assert second.updates == list(range(1, len(used) // 2 + 1))
    assert second.learner.incarnation == 1
    inspected = 4
    assert (first.engine.base_samples, second.engine.base_samples) == (8 + inspected, 0)
    assert second.spent <= 100.0
    assert 4 < len(second.rows) < 100.0 / 2.0


def test_history_is_on_disk_before_the_checkpoint_that_follows_it(run: Run, monkeypatch: pytest.MonkeyPatch):
    """A power cut or an error of the disk leaves only flushed files."""
    flushed: list[Path] = []
    linked: list[bool] = []
    link = checkpoints.link

    def look(name: Path, checkpoint: Path) -> None:
        linked.append({run.path / "samples", run.path} <= set(flushed))
        flushed.clear()
        link(name, checkpoint)

    monkeypatch.setattr(run_folder, "sync", flushed.append)
    monkeypatch.setattr(checkpoints, "link", look)
    run.change({"budget.updates": 4})
    run.go()
    assert linked
    assert all(linked)


def history(run: Run) -> list[int]:
    """Indices of the groups behind the learner's adapter, in order of their updates."""
    last: dict[int, Batch] = {batch.version: batch for batch in run.learner.batches}
    return [group.index for version in range(run.learner.version) for group in last[version].groups]


def test_dead_learner_costs_the_updates_since_the_checkpoint_and_what_is_under_way(run: Run):
    run.learner.deaths = {("step", 4)}
    run.change({"budget.updates": 7})
    run.go()
    counts = run.coordinator.ledger.counts
    assert counts["updates/abandoned"] == 1
    assert counts["groups/abandoned"] == 2 + 2 + 2  # of the update made again, in the learner's hands, and ahead of it
    assert [batch.version for batch in run.learner.batches] == [0, 1, 2, 3, 3, 4, 5, 6]


def test_learner_that_dies_between_the_same_checkpoints_halts_the_run(run: Run):
    """However long each attempt takes: nothing would come of a day of them."""

    class Mortal(set[tuple[str, int]]):
        def discard(self, call: tuple[str, int]) -> None: ...

        remove = discard

    run.learner.deaths = Mortal({("accumulate", 1)})
    cause = run.fail()
    assert "5 times" in str(cause)
    assert run.coordinator.ledger.counts["deaths/learner"] == 5


@pytest.mark.parametrize("call", ["save", "score"])
def test_learner_that_dies_at_the_end_leaves_the_last_checkpoint_to_be_evaluated(run: Run, call: str):
    run.learner.deaths = {(call, 5 if call == "save" else 6)}
    run.change({"budget.updates": 5 if call == "save" else 6, "checkpoint.every": 3})
    run.go()
    assert run.eval.final is not None
    assert run.coordinator.updates == len(run.rows) == (3 if call == "save" else 6)
    assert run.latest == f"update-{run.coordinator.updates:06d}"


@pytest.mark.parametrize("stops", [(), (30.0,)])
def test_revival_that_takes_too_long_breaks_neither_budget_nor_stop(run: Run, stops: tuple[float, ...]):
    run.learner.deaths = {("accumulate", 4)}
    run.learner.revive = lambda: asyncio.sleep(10_000.0)  # type: ignore[method-assign]
    outcome = run.go(*stops)
    assert outcome.status == ("interrupted" if stops else "budget_exhausted")
    assert (run.eval.final is None) == bool(stops)
    assert run.spent <= (31.0 if stops else run.seconds)
    assert run.coordinator.updates == 3


@pytest.mark.parametrize("name", ["learner-0", "rollout-0"])
def test_actor_that_could_not_be_healed_fails_the_run(run: Run, name: str):
    async def give_up(*_: object) -> Any:
        await run.learner.travel()
        raise ActorDied(f"{name} has died 3 times")

    async def late(request: Request) -> None:
        if request.index == 9:
            await give_up()

    if name == "learner-0":
        run.learner.deaths, run.learner.revive = {("accumulate", 1)}, give_up  # type: ignore[method-assign]
    else:
        run.engine.before = late  # type: ignore[method-assign]
    assert str(run.fail()) == f"{name} has died 3 times"


@pytest.mark.parametrize(("action", "rollbacks"), [("warn", 2), ("stop", 2), ("rollback", 0)])
def test_collapse_is_reported_or_halts_as_asked_for(run: Run, action: str, rollbacks: int):
    run.learner.metrics_of = collapsing({*range(12, 100)})
    run.change({"guard.window": 8, "guard.action": action, "guard.rollbacks": rollbacks, "budget.updates": 16})
    if action == "stop":
        cause = run.fail()
        assert isinstance(cause, Halted)
        assert "policy/kl_to_base" in str(cause)
        assert run.learner.version == 13
    else:
        assert run.go().status == "completed"
    assert [row["update"] for row in run.rows if row["guard/alarms"]] == [13]
    (event,) = run.folder.events()
    assert (event.update, event.event) == (13, "collapse")
    assert "policy/kl_to_base" in event.detail


def test_few_effective_samples_are_written_down_and_never_halt_the_run(run: Run):
    run.learner.metrics_of = lambda _: {"mismatch/ess": 0.4}
    run.change({"guard.action": "stop", "budget.updates": 5})
    assert run.go().status == "completed"
    assert [row["guard/alarms"] for row in run.rows] == [0] * 5
    (event,) = run.folder.events()
    assert (event.update, event.event) == (3, "mismatch")
    assert "mismatch/ess" in event.detail


def test_collapse_is_rolled_back_before_it_began(run: Run):
    """Versions 12 and 13 collapse; checkpoints are 9 and 12, and nothing after 9 is four updates old."""
    run.learner.metrics_of = collapsing({12, 13})
    run.change({"guard.window": 8, "guard.action": "rollback", "budget.updates": 25})
    run.seconds = 400.0
    assert run.go().status == "completed"
    assert [batch.version for batch in run.learner.batches] == [*range(13), *range(9, 25)]
    assert sorted(history(run)) == list(range(50))
    assert run.updates == list(range(1, 26))
    assert [event.event for event in run.folder.events()] == ["rolled back"]
    seeds = {(each.index, each.sampling.seed) for each in run.engine.requests if each.sampling.samples > 1}
    again = Counter(index for index, _ in seeds)
    assert all(again[index] == 2 for index in range(18, 26)), "sampled again, other samples are wanted"
    assert run.coordinator.ledger.counts["updates/abandoned"] == 4
    assert run.learner.rates[-1] == run.learner.rates[0] / 2


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("owner", "call", "returned"),
    [
        (checkpoints.Checkpoints, "return_to", False),
        (checkpoints, "retire", True),
        (run_folder.RunFolder, "cut_metrics", True),
        (checkpoints.Checkpoints, "clear", True),
    ],
)
def test_a_run_that_is_killed_while_it_goes_back_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str, returned: bool
):
    """Whether or not it has gone back already, no update is missing or there twice."""
    settings = {"guard.window": 8, "guard.action": "rollback", "budget.updates": 25, "checkpoint.keep_last": 9}
    first, second = (Run(tmp_path, settings, seconds=600.0) for _ in range(2))
    first.learner.metrics_of = collapsing({12, 13})

    go_back = run_folder.RunFolder.return_to

    def killed(*_: Any) -> None:
        raise Killed

    def go_back_until_killed(folder: run_folder.RunFolder, version: int) -> Path | None:
        monkeypatch.setattr(owner, call, killed)
        return go_back(folder, version)

    monkeypatch.setattr(run_folder.RunFolder, "return_to", go_back_until_killed)
    assert isinstance(first.fail(), Killed)
    monkeypatch.undo()
    assert second.go().status == "completed"
    assert second.updates == list(range(1, 26))
    assert min(batch.version for batch in second.learner.batches) == (9 if returned else 12)
    assert [event.event for event in second.folder.events()].count("rolled back") <= 1


def frozen(version: int) -> dict[str, float]:
    """Metrics of a policy that has become certain after six updates."""
    return {"policy/entropy": 1.0 if version <= 6 else 0.1}


@pytest.mark.parametrize(("seconds", "back"), [(400.0, 1), (21.0, 0)])
def test_a_run_that_freezes_goes_back_to_where_it_explored_if_that_pays(run: Run, seconds: float, back: int):
    """Groups without a difference from the 26th on: half of them right. The second time, all have a difference."""
    run.engine.seconds = run.learner.seconds = 0.5
    run.verifier.rewards_of = lambda group: (
        half_right(group)
        if group.index < 26 or run.coordinator._rollbacks
        else (make_reward(float(group.index % 2)),) * len(group.samples)
    )
    run.learner.metrics_of = frozen
    settings = {"checkpoint.every": 3, "checkpoint.keep_last": 1, "guard.action": "rollback"}
    run.change({"budget.updates": 60, **settings})
    run.seconds = seconds
    outcome = run.go()
    assert (outcome.status, "nothing more" in outcome.reason) == ("completed", not back)
    found = [(event.event, event.detail.rpartition(" ")[2]) for event in run.folder.events()]
    assert found == [("rolled back", "6")] * back
    if back:
        assert run.updates == list(range(1, 61))
        assert run.learner.rates[-1] == run.learner.rates[0] / 2


def test_validations_that_fall_for_good_lead_back_to_the_best(run: Run):

    def rewards(group: Group) -> tuple[Reward, ...]:
        bad = group.adapter is not None and group.version >= 9 and not run.coordinator._rollbacks
        return (make_reward(float(not bad)),) if len(group.samples) == 1 else half_right(group)

    run.verifier.rewards_of = rewards
    settings = {"validation.every": 2, "validation.share": 1.0, "checkpoint.every": 2, "guard.action": "rollback"}
    run.change({"budget.updates": 40, **settings})
    run.seconds = 600.0
    assert run.go().status == "completed"
    (event,) = run.folder.events()
    assert (event.update, event.event) == (14, "rolled back")
    assert event.detail.endswith("version 8")


def test_a_policy_that_breaks_leads_back_before_it_broke(run: Run):
    run.learner.metrics_of = lambda version: {
        "policy/entropy": 0.4 if version < 10 or run.coordinator._rollbacks else 3.0
    }
    run.change({"checkpoint.every": 2, "checkpoint.keep_last": 9, "guard.action": "rollback", "budget.updates": 40})
    run.seconds = 600.0
    assert run.go().status == "completed"
    (event,) = run.folder.events()
    assert (event.update, event.event) == (11, "rolled back")
    assert event.detail.endswith("version 6")
    assert run.updates == list(range(1, 41))

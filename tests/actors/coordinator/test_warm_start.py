"""The warm start in whole runs over fakes."""

from pathlib import Path
from typing import Any

import pytest

from actors.errors import Halted
from actors.messages import Group, Reward
from actors.storage.checkpoints import read_state
from conf.settings import changed
from tests.actors.virtual_run import Run, make_config
from tests.fakes import make_reward

UPDATES = 3


class WarmRun(Run):
    """Seven candidates, whose prompts show examples, or as many solutions. One demonstration of each is learned, two
    per update.
    """

    def __init__(self, path: Path, source: str = "self", seconds: float = 200.0, **settings: Any) -> None:
        more = {"source": source, "per_problem": 1, "demonstrations_per_update": 2, "fraction": 0.5, **settings}
        config = changed(make_config(), {"budget.updates": UPDATES, **{f"warm_start.{k}": v for k, v in more.items()}})
        super().__init__(path, config, seconds)

    @property
    def learned(self) -> list[tuple[str, ...]]:
        return [tuple(each.problem.id for each in batch) for batch, _ in self.learner.imitated]


@pytest.fixture
def run(tmp_path: Path) -> WarmRun:
    return WarmRun(tmp_path)


def test_own_right_responses_are_learned_without_the_examples(run: WarmRun) -> None:
    outcome = run.go()
    assert outcome.status == "completed"
    batches = [batch for batch, _ in run.learner.imitated]
    assert [len(batch) for batch in batches] == [1, 2, 2, 2] * 3
    assert {each.problem.prompt for batch in batches for each in batch} == {p.prompt for p in run.problems.train}
    assert all(len({*run.learned[at : at + 4]}) == 4 for at in (0, 4, 8)), "each pass has every problem once"
    progress = [progress for _, progress in run.learner.imitated]
    assert progress == sorted(progress)
    assert progress[0] == 0.0
    assert len(run.rows) == UPDATES
    assert [row.update for row in run.folder.warm_start_rows()] == list(range(1, 13))
    evaluations = run.folder.evaluations()
    assert evaluations.base
    assert evaluations.warm
    assert {row.version for row in run.folder.samples("eval-warm")} == {0}
    kept = sorted(path.name for path in (run.path / "checkpoints").glob("update-*"))
    assert kept[0] == "update-000000"
    state = read_state(run.path / "checkpoints" / "update-000000")
    assert (state.imitated, state.warm_start_over) == (12, True)


def test_solutions_are_verified_and_the_unused_are_named(tmp_path: Path) -> None:
    run = WarmRun(tmp_path, "file:worked.jsonl")
    run.config = changed(run.config, {"rollout.max_response_tokens": 16})

    def rewards(group: Group) -> tuple[Reward, ...]:
        return (make_reward(float(group.problem.id != "p303")),) * 2

    run.verifier.rewards_of = rewards
    run.go()
    assert {problem for batch in run.learned for problem in batch} == {f"p{n}" for n in range(300, 307)} - {"p303"}
    assert all(each.token_ids[1:] == [8, 9] for batch, _ in run.learner.imitated for each in batch)
    (event,) = run.folder.events()
    assert "p303" in event.detail
    assert [row.problem for row in run.folder.samples("warm-start") if row.status != "correct"] == ["p303"]
    counts = run.coordinator.ledger.counts
    assert (counts["demonstrations/correct"], counts["demonstrations/wrong"]) == (6, 1)


@pytest.mark.parametrize("source", ["self", "file:worked.jsonl"])
def test_no_right_response_halts_the_run(tmp_path: Path, source: str) -> None:
    run = WarmRun(tmp_path, source)
    run.verifier.rewards_of = lambda _: (make_reward(0.0),) * 2
    cause = run.fail()
    assert isinstance(cause, Halted)
    assert "warm_start.source" in str(cause)
    assert not run.learner.imitated

"""A deterministic run takes its groups in the order of the data, whatever the clock says. Whole runs over fakes."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.actors.virtual_run import Run
from tests.fakes import make_reward

pytestmark = pytest.mark.long

UPDATES, RATE = 4, 1e-3


def make_run(path: Path, pace: random.Random, *, refill: bool = True) -> Run:
    """A run whose every duration is random; a third of the groups has nothing to learn from."""
    settings = {
        "learner.max_staleness": 0,
        "learner.dynamic_sampling": refill,
        "learner.problems_per_update": 4,
        "learner.learning_rate": RATE,
        "learner.schedule": "linear",
        "learner.final_rate": 0.0,
        "run.deterministic": True,
        "budget.updates": UPDATES,
        "validation.every": 2,
        "validation.share": 0.0,
    }
    run = Run(path, settings, seconds=1e5)
    run.engine.seconds_of = lambda index: pace.uniform(0.1, 9.0)  # type: ignore[method-assign]

    run.verifier.seconds_of = lambda _: pace.uniform(0.1, 3.0)
    run.verifier.rewards_of = lambda group: (make_reward(1.0), make_reward(float(group.index % 3 == 0)))
    return run


def seen(run: Run) -> tuple[Any, ...]:
    """Return the learner's groups and schedule, and the rows without times."""
    batches = [[(group.index, group.problem.id) for group in batch.groups] for batch in run.learner.batches]
    timed = ("time/", "budget/", "ledger/", "rollout/")
    return batches, run.learner.rates, [{k: v for k, v in row.items() if not k.startswith(timed)} for row in run.rows]


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_durations_change_nothing(first: int, second: int, refill: bool):
    with TemporaryDirectory() as folder:
        runs = [
            make_run(Path(folder, str(number)), random.Random(seed), refill=refill)
            for number, seed in enumerate((first, second))
        ]
        for run in runs:
            assert run.go().status == "completed"
        assert seen(runs[0]) == seen(runs[1])
        assert not any(row["overlap"] for row in runs[0].rows)
        assert [*runs[0].series("validation/pass@1")] == [2, 4]
        assert runs[0].learner.rates == pytest.approx([RATE * (1 - number / UPDATES) for number in range(UPDATES)])


@pytest.mark.parametrize("stop", [45.0, 60.0])
def test_stopped_and_resumed_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, stop: float):
    """Except for a validation that a stop cuts short: its version is not validated again."""
    whole = make_run(tmp_path / "whole", random.Random(1))
    whole.change({"validation.every": 0})
    whole.go()
    parts = make_run(tmp_path / "parts", random.Random(2))
    parts.change({"validation.every": 0})
    assert parts.go(stop).status == "interrupted"
    made = len(parts.rows)
    assert 0 < made < UPDATES
    assert parts.go().status == "completed"
    assert seen(parts) == seen(whole)

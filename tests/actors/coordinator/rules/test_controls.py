"""What adapts while a run goes on, and that a resume loses nothing of it."""

from typing import Any

import pytest

from microbudget_rl.actors.coordinator.rules.controls import SKIPPED_UPDATES, Controls
from microbudget_rl.actors.coordinator.rules.learning import FRUITLESS_BATCHES
from microbudget_rl.actors.coordinator.rules.rate import FEWEST
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import Measured
from microbudget_rl.actors.storage.documents import ControlsState
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.fakes import make_group

PEAK = 1e-3
CONFIG = changed(
    Config(),
    {
        "learner.learning_rate": PEAK,
        "learner.schedule": "constant",
        "learner.warmup_updates": 0,
        "learner.max_kl": 0.01,
        "learner.problems_per_update": 1,
        "guard.window": 4,
        "guard.patience": 2,
    },
)
FRESH, MOVED, EMPTY, UNWEIGHED = Measured(8, 0.02, 0.0), Measured(8, 0.06, 1.0), Measured(), Measured(8)


def update(controls: Controls, measured: Measured, fault: str = "", **row: float) -> tuple[dict[str, float], list[Any]]:
    """Make one update. Return its metrics and alarms."""
    rate = controls.rate(0, 0.0, measured)
    metrics = controls.stepped(rate, measured, fault)
    return metrics, controls.alarms({name.replace("__", "/"): value for name, value in row.items()})


def resumed(controls: Controls) -> Controls:
    """Return the controls of a process that reads the checkpoint of another."""
    return Controls(CONFIG, ControlsState.model_validate_json(controls.state.model_dump_json()))


def test_rates_follow_the_movement_of_the_policy_and_a_resume_knows_them():
    controls, fractions = Controls(CONFIG, ControlsState()), []
    for measured in (FRESH, *[MOVED] * 2, UNWEIGHED, MOVED, EMPTY):
        metrics, _ = update(controls, measured)
        assert metrics["learning_rate"] == PEAK * metrics["learner/rate_kept"]
        fractions.append(metrics["learner/rate_kept"])
        controls = resumed(controls)
    assert fractions == pytest.approx([1.0] * FEWEST + [1.0, 0.5, 1.0])
    free = Controls(changed(CONFIG, {"learner.max_kl": 0.0}), ControlsState())
    assert {update(free, MOVED)[0]["learning_rate"] for _ in range(6)} == {PEAK}


def test_skipped_updates_in_a_row_halt_the_run_across_a_resume():
    controls = Controls(CONFIG, ControlsState())
    for fault in ("nan", "", *["nan"] * (SKIPPED_UPDATES - 1)):
        assert update(controls, FRESH, fault)[0]["learner/skipped"] == bool(fault)
    with pytest.raises(Halted, match="skipped-"):
        update(resumed(controls), FRESH, "nan")


def test_guard_and_fruitless_groups_are_counted_across_a_resume():
    controls = Controls(CONFIG, ControlsState())
    for index in range(FRUITLESS_BATCHES):
        controls = resumed(controls)
        assert not controls.fruitless.end_reason
        controls.fruitless.add(make_group(index, scores=(1.0, 1.0)), learned=True, settled=True)
        assert update(controls, FRESH, policy__kl_to_base=0.01, reward__mean=0.5)[1] == []
    assert controls.fruitless.end_reason
    worse = {"policy__kl_to_base": 9.0, "reward__mean": 0.3}
    found = [alarm.signal for _ in range(2) for alarm in update(controls, FRESH, **worse)[1]]
    assert found == ["policy/kl_to_base"]

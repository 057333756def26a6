"""The doctor's use of measured seconds."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from launch.checkup import measurement
from launch.checkup.measurement import DOCTOR, Measured, keep_measured
from launch.plan.measurements import keep, recall
from launch.plan.time import Calibration
from tests.fakes import FakeEngine, FakeLearner
from tests.launch.plan.plans import machine, plan
from tests.virtual_time import run_virtually

MEASURED = Measured(
    seconds={"decode": 12.0, "learn": 3.0, "update": 1.0, "sync": 0.5},
    predicted={"decode": 6.0, "learn": 6.0, "update": 1.0, "sync": 1000.0},
    decoded=3000.0,
    learned=9000.0,
)


def test_ratios_correct_the_next_plan_unless_a_run_has_measured_more(tmp_path: Path) -> None:
    found = MEASURED.calibration
    assert (found.decode, found.learn, found.update, found.sync) == (2.0, 0.5, 1.0, 0.05)
    assert found.of == DOCTOR
    made = plan("r8_instruct", machine("A40"), f"run.folder={tmp_path}")
    assert keep_measured(MEASURED, made)
    assert recall(made.config, made.machine) == found
    assert keep_measured(MEASURED, made)
    keep(Calibration(decode=1.5, of="20 updates"), made.config, made.machine)
    assert not keep_measured(MEASURED, made)
    assert recall(made.config, made.machine).decode == 1.5


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def timed(work: Awaitable[Any]) -> tuple[Any, float]:
        began = asyncio.get_running_loop().time()
        return await work, asyncio.get_running_loop().time() - began

    monkeypatch.setattr(measurement, "timed", timed)


def test_seconds_and_tokens_of_each_work_are_measured_beside_the_planned_seconds() -> None:
    made = plan("r256_instruct", machine("A40"), "rollout.typical_response_tokens=128")
    assert made.costs
    engine: Any = FakeEngine(seconds=3.0)  # for samples of one token
    learner: Any = FakeLearner(seconds=2.0)
    found = run_virtually(measurement._measure(made, engine, learner))
    assert found.seconds == pytest.approx({"decode": 3.0, "learn": 2.0, "update": 0.0, "sync": 0.0}, abs=0.01)
    assert found.decoded == pytest.approx(made.at_once / 3.0, rel=0.05)
    assert found.predicted["learn"] == pytest.approx(2.0 * found.learned * made.costs.learn_s, rel=0.1)
    planned = {"update": made.costs.update_s, "sync": made.costs.sync_s}
    assert {name: found.predicted[name] for name in planned} == pytest.approx(planned)

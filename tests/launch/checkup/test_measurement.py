"""The doctor's use of measured seconds."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.launch.checkup import measurement
from microbudget_rl.launch.checkup.measurement import DOCTOR, Measured, keep_measured
from microbudget_rl.launch.plan.measurements import keep, recall
from microbudget_rl.launch.plan.time import Calibration, costs_of
from tests.fakes import FakeEngine, FakeLearner
from tests.launch.plan.plans import machine, plan
from tests.virtual_time import run_virtually

MEASURED = Calibration(generate=2.0, learn=0.5, of=DOCTOR)


def test_ratios_correct_the_next_plan_unless_a_run_has_measured_more(tmp_path: Path):
    made = plan("r8_instruct", machine("A40"), f"run.folder={tmp_path}")
    for measured in (MEASURED, Calibration(generate=3.0, of=DOCTOR)):
        assert keep_measured(measured, made)
        assert recall(made.config, made.machine) == measured
    keep(Calibration(generate=1.5, of="20 updates"), made.config, made.machine)
    assert not keep_measured(MEASURED, made)
    assert recall(made.config, made.machine).generate == 1.5


def test_speeds_are_measured_beside_the_planned_seconds(monkeypatch: pytest.MonkeyPatch):
    async def timed(work: Awaitable[Any]) -> tuple[Any, float]:
        began = asyncio.get_running_loop().time()
        return await work, asyncio.get_running_loop().time() - began

    monkeypatch.setattr(measurement, "timed", timed)
    sizes = ("rollout.typical_response_tokens=128", "learner.tokens_per_microbatch=4096")
    made = plan("r256_instruct", machine("A40"), *sizes)

    def measured(seconds: float) -> Measured:
        engine: Any = FakeEngine(seconds)  # for samples of one token
        learner: Any = FakeLearner(seconds=2.0)
        return run_virtually(measurement._measure(made, engine, learner))

    found, slower = measured(3.0), measured(6.0)
    costs = costs_of(made, made.workload)
    assert costs
    assert found.decoded == pytest.approx(made.at_once / 3.0, rel=0.05)
    assert found.learned > measurement.MICROBATCHES * made.config.learner.microbatch / 2.0 * 0.9
    assert found.calibration.learn * (2.0 * found.learned * costs.learn_s + costs.update_s) == pytest.approx(2.0, 0.1)
    assert slower.calibration.generate == pytest.approx(2 * found.calibration.generate)
    assert slower.calibration.learn == pytest.approx(found.calibration.learn)

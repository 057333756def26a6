"""What the doctor makes of measured seconds."""

import asyncio
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from actors.rollout.pool import EnginePool
from launch.doctors import measurement
from launch.doctors.measurement import DOCTOR, Measured, batch, costs, decoding_s, store
from launch.plan.calibration import keep, recall
from launch.plan.plan import Plan
from launch.plan.simulation import ModelledEngine, ModelledLearner
from launch.plan.time import UNMEASURED, Calibration
from launch.plan.virtual_time import Processor, VirtualClock, run_virtually
from tests.launch.plan.plans import CPU, machine, plan

MEASURED = Measured(
    seconds={"decode": 12.0, "learn": 3.0, "update": 1.0, "swap": 0.5},
    predicted={"decode": 6.0, "learn": 6.0, "update": 1.0, "swap": 1000.0},
    together=1.2,
    decoded=3000.0,
    learned=9000.0,
)


def test_ratios_correct_the_next_plan() -> None:
    found = MEASURED.calibration
    assert (found.decode, found.learn, found.update, found.swap) == (2.0, 0.5, 1.0, 0.05)
    assert (found.together, found.of) == (1.2, DOCTOR)


def test_a_run_says_more_than_the_doctor(tmp_path: Path) -> None:
    made = plan("r8_instruct", machine("A40"), f"run.folder={tmp_path}")
    assert store(MEASURED, made.config, made.machine)
    assert recall(made.config, made.machine).decode == 2.0
    assert store(MEASURED, made.config, made.machine)
    keep(Calibration(decode=1.5, of="20 updates"), made.config, made.machine)
    assert not store(MEASURED, made.config, made.machine)
    assert recall(made.config, made.machine).decode == 1.5


@pytest.mark.parametrize("setting", ["run.mps=true", "learner.fused_kernels=false", "rollout.lora_kernel_sizes=false"])
def test_what_was_measured_with_a_setting_says_nothing_of_runs_without(setting: str, tmp_path: Path) -> None:
    usual, changed = (plan("r8_instruct", machine("A40"), f"run.folder={tmp_path}", *each) for each in ((), (setting,)))
    assert store(MEASURED, changed.config, changed.machine)
    assert recall(usual.config, usual.machine) == UNMEASURED
    assert recall(changed.config, changed.machine).of == DOCTOR


def test_samples_that_end_early_make_steps_cheaper() -> None:
    made = plan("r8_instruct", machine("A40"))
    spent = costs(made, 128, 10.0)
    assert decoding_s(spent, [10, 10], 0) == pytest.approx(10 * spent.decode_s(2))
    assert decoding_s(spent, [10, 5], 0) == pytest.approx(5 * spent.decode_s(2) + 5 * spent.decode_s(1))


@pytest.mark.parametrize("where", [CPU, machine("A40")])
def test_the_learner_gets_work_of_a_runs_kind(where: object) -> None:
    made = plan("quickstart" if where is CPU else "r256_instruct", where)  # type: ignore[arg-type]
    work = batch(made, random.Random(0))
    lengths = [len(sample.token_ids) for group in work.groups for sample in group.samples]
    assert len(lengths) == len(work.groups) * made.config.rollout.samples_per_problem
    assert sum(lengths) / len(lengths) == pytest.approx(made.workload.response, rel=0.2)
    assert all(len({reward.total for reward in group.rewards}) == 2 for group in work.groups)


def measured_of_a_model(made: Plan, together: float, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """What is measured where engine and learner take just as long as is planned, in virtual time."""

    async def timed(work: Awaitable[Any]) -> tuple[Any, float]:
        began = asyncio.get_running_loop().time()
        return await work, asyncio.get_running_loop().time() - began

    async def work() -> Measured:
        assert made.costs
        card, rng = Processor(together), random.Random(1)
        engine = ModelledEngine("rollout-0", made.costs, made.workload, made.at_once, card, rng)
        pool = EnginePool([engine], VirtualClock(), lambda name, why: None)
        learner = ModelledLearner(made.config, made.costs, made.workload, 1, card, made.placement.device)
        return await measurement._measure(made, pool, learner)  # type: ignore[arg-type]

    monkeypatch.setattr(measurement, "timed", timed)
    return run_virtually(work())


def test_what_goes_as_planned_is_measured_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan("r256_instruct", machine("A40"))
    found = measured_of_a_model(made, 1.25, monkeypatch)
    for name in ("update", "swap"):
        assert found.seconds[name] == pytest.approx(found.predicted[name])
    # Their samples have fewer tokens behind them than those of a run, for which the model's costs are.
    assert found.seconds["learn"] == pytest.approx(found.predicted["learn"], rel=0.1)
    assert found.predicted["decode"] < found.seconds["decode"] < 2.0 * found.predicted["decode"]
    assert 1.1 < found.together < 1.25
    assert found.decoded == pytest.approx(made.at_once * 256 / found.seconds["decode"], rel=0.05)

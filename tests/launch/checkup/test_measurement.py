"""The doctor's use of measured seconds."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Group, Problem
from conf.settings import changed
from launch.checkup import measurement
from launch.checkup.measurement import DOCTOR, Measured, estimates, keep_measured, ratios
from launch.plan.calibration import keep, plan_measured, recall
from launch.plan.time import UNMEASURED, Calibration
from tests.fakes import FakeEngine, FakeLearner
from tests.launch.plan.plans import machine, plan
from tests.virtual_time import run_virtually

MEASURED = Measured(
    seconds={"decode": 12.0, "learn": 3.0, "update": 1.0, "sync": 0.5},
    predicted={"decode": 6.0, "learn": 6.0, "update": 1.0, "sync": 1000.0},
    together=1.2,
    decoded=3000.0,
    learned=9000.0,
)


def test_ratios_correct_the_next_plan_unless_a_run_has_measured_more(tmp_path: Path) -> None:
    found = MEASURED.calibration
    assert (found.decode, found.learn, found.update, found.sync) == (2.0, 0.5, 1.0, 0.05)
    assert (found.together, found.of) == (1.2, DOCTOR)
    made = plan("r8_instruct", machine("A40"), f"run.folder={tmp_path}")
    assert keep_measured(MEASURED, made.config, made.machine)
    assert recall(made.config, made.machine) == found
    assert keep_measured(MEASURED, made.config, made.machine)
    keep(Calibration(decode=1.5, of="20 updates"), made.config, made.machine)
    assert not keep_measured(MEASURED, made.config, made.machine)
    assert recall(made.config, made.machine).decode == 1.5


def test_where_no_client_of_mps_works_the_measurement_without_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan expects MPS, which falls back when the doctor or a run starts."""
    made = plan("r8_instruct", replace(machine("A40"), mps=True), f"run.folder={tmp_path}")
    assert made.config.run.mps
    assert plan_measured(made.undecided, made.machine).calibration == UNMEASURED
    assert keep_measured(MEASURED, changed(made.config, {"run.nvidia_mps": "off"}), made.machine)
    assert plan_measured(made.undecided, made.machine).calibration == MEASURED.calibration
    keep(Calibration(decode=1.5, of="20 updates"), made.config, made.machine)
    assert plan_measured(made.undecided, made.machine).calibration.decode == 1.5


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
    assert found.together == pytest.approx(2.0, rel=0.01)
    assert found.decoded == pytest.approx(made.at_once / 3.0, rel=0.05)
    assert found.predicted["learn"] == pytest.approx(2.0 * found.learned * made.costs.learn_s, rel=0.1)
    planned = {"update": made.costs.update_s, "sync": made.costs.sync_s}
    assert {name: found.predicted[name] for name in planned} == pytest.approx(planned)


@given(st.floats(0.1, 15.0), st.floats(0.1, 15.0), st.floats(0.05, 3.0), st.floats(1.0, 9.0))
def test_keys_and_values_are_told_from_the_rest_by_two_contexts(
    rest: float, cache: float, short: float, longer: float
) -> None:
    """The second decoding is of half the samples, with contexts so many times as long."""
    near = rest * 2.0 + cache * short, short, 2.0
    far = rest * 1.3 + cache * short * (0.65 + longer), short * (0.65 + longer), 1.3
    found = ratios(near, far)
    assert {name: seconds / planned for name, (seconds, planned) in found.items()} == pytest.approx(
        {"decode": rest, "cache": cache}, rel=1e-6
    )
    assert ratios(near, None) == {"decode": (near[0], 2.0 + short)}


@pytest.mark.parametrize(("recipe", "kinds"), [("r256_instruct", {"decode", "cache"}), ("gsm8k", {"decode"})])
def test_a_run_with_long_contexts_is_measured_at_two(recipe: str, kinds: set[str]) -> None:
    """Prompts of the second decoding are computed before it, one per sample, and fit the engine."""
    made, decoded = plan(recipe, machine("A40")), list[tuple[int, int, int, str]]()

    class Engine(FakeEngine):
        async def generate(self, index: int, problem: Problem, *rest: Any) -> Group:
            sampling = rest[-1]
            decoded.append((len(problem.prompt_ids), sampling.max_tokens, sampling.samples, problem.id))
            return await super().generate(index, problem, *rest)

    engine: Any = Engine(seconds=3.0)
    learner: Any = FakeLearner(seconds=2.0)
    found = run_virtually(measurement._measure(made, engine, learner))
    assert found.seconds.keys() == {"learn", "update", "sync"} | kinds
    long = [each for each in decoded if each[0] > measurement.PROMPT]
    assert bool(long) == ("cache" in kinds) == (found.calibration.cache is not None)
    assert {samples for _, _, samples, _ in long} <= {1}
    computed, again = ([name for _, tokens, _, name in long if (tokens == 1) == first] for first in (True, False))
    assert computed == again
    assert all(length + tokens <= made.config.rollout.longest for length, tokens, _, _ in decoded)


@given(st.floats(1.0, 4.0), st.floats(1.0, 4.0), st.floats(0.4, 1.0))
def test_the_gain_of_both_at_once_does_not_depend_on_how_long_each_takes(one: float, other: float, slow: float) -> None:
    """Beside each other, both have the same fraction of the speed that they have alone."""
    at_work = 0

    async def work(left: float) -> None:
        nonlocal at_work
        at_work += 1
        while left > 0:
            await asyncio.sleep(0.02)
            left -= 0.02 * (slow if at_work == 2 else 1.0)
        at_work -= 1

    found = run_virtually(measurement.gain((one, lambda: work(one)), (other, lambda: work(other))))
    assert found == pytest.approx(2 * slow, rel=0.05)


def test_measurements_are_compared_at_each_staleness_unless_the_run_is_deterministic() -> None:
    made = plan("r256_instruct", machine("A40"))
    slow = replace(MEASURED, seconds=MEASURED.seconds | {"learn": 6.0})
    compared = estimates(made, {90: MEASURED, 80: slow})
    assert len(compared) == 4
    fastest = min(compared, key=lambda name: compared[name].update_s)
    assert "learner.max_staleness=2" in fastest.split()
    made = plan("r256_instruct", machine("A40"), "run.deterministic=true", "budget.updates=9")
    assert list(estimates(made, {80: MEASURED})) == ["learner.max_staleness=0"]

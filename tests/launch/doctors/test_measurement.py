"""What the doctor makes of measured seconds."""

import random
from pathlib import Path

import pytest

from launch.doctors.measurement import DOCTOR, Measured, batch, costs, decoding_s, store
from launch.plan.calibration import keep, recall
from launch.plan.time import Calibration
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

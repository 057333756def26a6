from dataclasses import replace

import pytest

from conf.load import load
from launch.hardware.gpus import Gpu
from launch.hardware.machine import GIB, Machine, with_gpus
from launch.sweep_runs.grid import read_grid
from launch.sweep_runs.workers import divide, plan_runs
from tests.launch.plan.plans import CPU


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def with_a40s(count: int, cores: int = 32) -> Machine:
    cards = [Gpu(str(index), "NVIDIA A40", 45 * GIB, None) for index in range(count)]
    return replace(with_gpus(cards, tuple(range(cores))), host_memory=128 * GIB)


def count(machine: Machine, *settings: str) -> int:
    return len(divide(machine, read_grid(["conf=r8_instruct", "seeds=[0,1,2,3,4]", *settings])))


def test_each_gpu_is_a_worker_unless_a_run_takes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(with_a40s(4)) == 4
    assert count(with_a40s(8)) == 5
    assert count(with_a40s(4, cores=2)) == 2
    assert count(CPU) == 1
    assert count(with_a40s(4), "learner.world_size=2") == 1
    assert count(with_a40s(4), "rollout.actors=[1,2]") == 1
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert count(with_a40s(4)) == 1


@pytest.mark.parametrize(("gpus", "minutes", "mps", "given"), [(4, 180, "off", "off"), (1, 60, "on", "auto")])
def test_runs_are_planned_on_their_gpu_with_their_part_of_the_hours(
    gpus: int, minutes: int, mps: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs at a time have no MPS of their own, which would see all GPUs."""
    monkeypatch.setattr("launch.hardware.mps.installed", lambda: True)
    seeds = "seeds=[0,1,2,3,4,5,6,7,8]"
    grid = read_grid(["conf=r8_instruct", seeds, "sweep.hours=9", "run.nvidia_mps=auto"])
    machines = divide(with_a40s(gpus), grid)
    assert {(len(each.cores), each.host_memory) for each in machines} == {(32 // gpus, 128 * GIB // gpus)}
    plans = plan_runs(grid, machines).values()
    assert [card.index for plan in plans for card in plan.machine.cards] == [str(n % gpus) for n in range(9)]
    assert {(plan.config.budget.seconds, plan.config.run.nvidia_mps) for plan in plans} == {(60 * minutes, mps)}
    assert load(grid.runs[0].arguments).run.nvidia_mps == given

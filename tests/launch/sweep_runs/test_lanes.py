from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from conf.load import load
from conf.schema import Config, SweepConfig
from launch.hardware.gpus import Gpu
from launch.hardware.machine import GIB, Machine, with_gpus
from launch.plan.plan import make_plan
from launch.sweep_runs.grid import Grid, SweepRun, read_grid
from launch.sweep_runs.lanes import PROGRAMS, plan_lanes
from tests.launch.plan.plans import CPU, estimated

CORES = tuple(range(32))
SERVER = replace(CPU, cores=CORES, host_memory=128 * GIB)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def with_a40s(count: int, gib: int = 45) -> Machine:
    cards = [Gpu(str(index), "NVIDIA A40", gib * GIB, None) for index in range(count)]
    return replace(with_gpus(cards, CORES), host_memory=128 * GIB)


def configure(recipe: str, *settings: str) -> Config:
    return load([f"conf={recipe}", "model.dtype=bfloat16", *settings])


def count(machines: Machine | Sequence[Machine], configs: Sequence[Config]) -> int:
    """Number of lanes. machines: one for all runs, or one of each."""
    runs = tuple(SweepRun(f"run{number}", {}, (), config) for number, config in enumerate(configs))
    grid = Grid("sweep", "quickstart", SweepConfig(), {}, runs, Path("runs/sweep"))
    each = [machines] * len(runs) if isinstance(machines, Machine) else machines
    return len(plan_lanes(grid, each, PROGRAMS)[0])


SMALL, LARGE = configure("quickstart"), configure("r256_instruct")


def test_lanes_are_as_many_as_the_machine_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(with_a40s(4), [LARGE] * 9) == 4
    assert count(with_a40s(4), [LARGE] * 3) == 3
    assert count(replace(with_a40s(4), host_memory=40 * GIB), [LARGE] * 9) == 2
    assert count(with_a40s(4, gib=12), [LARGE] * 9) == 1
    assert count(replace(with_a40s(4), cores=(0, 1)), [LARGE] * 9) == 2
    assert count(SERVER, [SMALL] * 9) == 1
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert count(with_a40s(4), [LARGE] * 9) == 1


def test_runs_that_need_the_whole_machine_take_turns() -> None:
    for setting in ("learner.world_size=2", "rollout.actors=2"):
        assert count(with_a40s(4), [SMALL, configure("quickstart", setting)]) == 1
    assert count([with_a40s(4), SERVER], [SMALL] * 2) == 1


def test_runs_side_by_side_are_planned_on_their_gpus_with_their_part_of_the_hours() -> None:
    grid = read_grid(["conf=r8_instruct", "seeds=[0,1,2,3,4,5,6,7,8]", "sweep.hours=9"])
    lanes, by_name = plan_lanes(grid, [with_a40s(4)] * 9, PROGRAMS)
    plans = list(by_name.values())
    assert [card.index for plan in plans for card in plan.machine.cards] == [str(number % 4) for number in range(9)]
    assert [len(lane.runs) for lane in lanes] == [3, 2, 2, 2]
    assert {plan.config.budget.seconds for plan in plans} == {3 * 3600}
    alone = make_plan(plans[0].undecided, with_a40s(4))
    assert estimated(plans[0]).update_s > 1.5 * estimated(alone).update_s


@pytest.mark.parametrize(("gpus", "value", "given"), [(4, "off", "off"), (1, "on", "auto")])
def test_mps_of_auto_is_off_for_runs_side_by_side(
    gpus: int, value: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.hardware.mps.installed", lambda: True)
    grid = read_grid(["conf=r8_instruct", "seeds=[0,1]", "run.nvidia_mps=auto"])
    _, plans = plan_lanes(grid, [with_a40s(gpus)] * 2, PROGRAMS)
    assert {plan.config.run.nvidia_mps for plan in plans.values()} == {value}
    assert load(grid.runs[0].arguments).run.nvidia_mps == given

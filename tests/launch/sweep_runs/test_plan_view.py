from dataclasses import replace
from io import StringIO

import pytest

from microbudget_rl.conf.command import PlainConsole
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import GIB, Machine, with_gpus, with_listed
from microbudget_rl.launch.sweep_runs.grid import read_grid
from microbudget_rl.launch.sweep_runs.plan_view import SweepPlan, divide, plan_runs
from tests.launch.plan.plans import CPU

pytestmark = pytest.mark.long

HOUR = 3600


def planned(*arguments: str) -> SweepPlan:
    grid = read_grid([*arguments, "plan=true"])
    plan_runs(grid, [with_listed("A40", tuple(range(8)))])
    return SweepPlan(grid, 1)


def shown(plan: SweepPlan) -> list[str]:
    screen = StringIO()
    PlainConsole(width=100, file=screen).print(plan.shown())
    return screen.getvalue().splitlines()


@pytest.fixture(scope="module")
def paper() -> SweepPlan:
    return planned("conf=paper", "device=A40", "budget.price_per_hour=0.30")


def test_the_paper_is_priced_with_its_evaluations_on_one_gpu_and_on_more(paper: SweepPlan):
    runs_s, all_s = paper.total(paper.grid.runs), sum(paper.seconds.values())
    assert runs_s == 15 * 24 * HOUR
    assert runs_s + 2 * HOUR < all_s < runs_s + 10 * HOUR
    assert len(paper.seconds) == 15 + 15 + 5
    assert paper.sizes == {"aime24": 30, "aime25": 30, "amc23": 40}
    lines = shown(paper)
    assert lines[0].startswith("All fit. 15 runs on A40: 15 days in all, one after another")
    assert f"{all_s / HOUR * 0.3:.2f}" in lines[3]
    three_s = all_s + 2 * (runs_s + paper.total(paper.grid.evaluations))
    assert (f"{three_s / HOUR * 0.3:.2f}" in lines[4], "seeds=[0,1,2]" in lines[4]) == (True, True)
    assert max(map(len, lines)) <= 100
    rows = {words[0]: words for line in lines if len(words := line.split()) > 2}
    assert [rows[gpus][-1] for gpus in ("1", "5", "15")] == sorted(rows[gpus][-1] for gpus in ("1", "5", "15"))
    assert float(rows["15"][1]) < 25.5
    assert float(rows["instruct-r8"][-1]) > 7.2 > float(rows["base-qwen3"][-1])


def test_evaluations_take_longer_with_more_samples_and_cost_follows_the_price(paper: SweepPlan):
    twice = planned("conf=paper", "n=32", "simulate=[3]")
    assert 1.5 < twice.total(twice.grid.bases) / paper.total(paper.grid.bases) < 2
    assert "cost" not in "\n".join(shown(twice))
    assert [line.split()[0] for line in shown(twice)[-2:]] == ["3", "Times"]


def test_a_plan_names_runs_that_cannot_learn_and_refuses_an_adapter_that_is_not_there():
    plan = planned("conf=paper", "models=[instruct]", "ranks=[8,64]", "budget.updates=2")
    assert shown(plan)[0].startswith("2 of 2 hold 2 updates at most")
    assert all(plan.seconds[run] < 12 * HOUR for run in plan.grid.runs)  # of 24 in the budget
    with pytest.raises(BadInput, match=r"nowhere.*cannot be read"):
        planned("conf=quickstart", "ranks=[8]", "lora.start_from=nowhere")


def test_problems_of_files_are_counted_and_unknown_numbers_said():
    plan = planned("conf=paper_small", "benchmarks=[file:conf/recipes/one_digit.csv,hub:me/mine,heldout]", "limit=20")
    assert "seeds=[0,1,2]" not in " ".join(shown(plan))
    assert plan.sizes == {"one_digit": 20, "mine": None, "heldout": 20}
    assert "mine (unknown" in " ".join(" ".join(shown(plan)).split())


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def with_a40s(count: int, cores: int = 32) -> Machine:
    cards = [Gpu(str(index), "NVIDIA A40", 45 * GIB, None) for index in range(count)]
    return replace(with_gpus(cards, tuple(range(cores))), host_memory=128 * GIB)


def count(machine: Machine, *settings: str) -> int:
    return len(divide(machine, read_grid(["conf=r8_instruct", "seeds=[0,1,2,3,4]", *settings])))


def test_each_gpu_is_a_worker_unless_a_run_takes_several(monkeypatch: pytest.MonkeyPatch):
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
):
    """Runs at a time have no MPS of their own, which would see all GPUs."""
    monkeypatch.setattr("microbudget_rl.launch.hardware.machine.MPS_TOOL", "bash")
    seeds = "seeds=[0,1,2,3,4,5,6,7,8]"
    grid = read_grid(["conf=r8_instruct", seeds, "sweep.hours=9", "run.nvidia_mps=auto"])
    machines = divide(with_a40s(gpus), grid)
    assert {(len(each.cores), each.host_memory) for each in machines} == {(32 // gpus, 128 * GIB // gpus)}
    plan_runs(grid, machines)
    assert [card.index for run in grid.runs for card in run.plan.machine.cards] == [str(n % gpus) for n in range(9)]
    assert {(60 * minutes, mps)} == {(run.config.budget.seconds, run.plan.config.run.nvidia_mps) for run in grid.runs}
    assert load(grid.runs[0].arguments).run.nvidia_mps == given

from contextlib import nullcontext
from dataclasses import replace

import pytest

from microbudget_rl.actors.coordinator.budget import EVALUATION_SAFETY, MOST_EVALUATION
from microbudget_rl.actors.models.files import shape_of
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import GIB, Machine, detect, with_gpus
from microbudget_rl.launch.plan.memory import Fit
from microbudget_rl.launch.plan.refusal import check_budget, check_plan, engines_alone, remedy
from tests.launch.plan.plans import CPU, machine, plan, shown

SMALL = replace(machine("A40"), gpu_memory=11 * GIB)
UNLISTED = replace(machine("A40"), rates={}, bandwidth=None)
LONG = ["device=cpu", "rollout.max_response_tokens=20000", "learner.gradient_checkpointing=on"]


@pytest.mark.parametrize(
    ("recipe", "where", "settings", "said"),
    [
        ("r256_instruct", CPU, [], r"1\.5 billion .* GiB .*2 cores.*device=A40 .*device=cpu.* conf=quickstart"),
        ("r256_instruct", CPU, ["device=cpu"], ""),
        ("quickstart", replace(CPU, host_memory=2 * GIB), [], "host needs"),
        ("r256_instruct", machine("A100-80", host_memory=16 * GIB), [], r"host needs .* learner\.offload=none$"),
        ("r8_instruct", machine("T4"), [], r"T4 cannot compute in model\.dtype=bfloat16"),
        ("r8_instruct", UNLISTED, ["model.dtype=float32"], r"fits with model\.dtype=bfloat16"),
        ("r8_qwen3", CPU, LONG, r"18,724 tokens, .* rollout\.kv_cache_gib=3$"),
        ("r8_qwen3", CPU, [*LONG, "rollout.kv_cache_gib=3"], ""),
        ("r8_instruct", replace(machine("A40"), present=False), ["device=A40"], r"device=A40: .*plan=true"),
    ],
)
def test_plans_that_do_not_fit_are_refused_with_the_remedy(recipe: str, where: Machine, settings: list[str], said: str):
    with pytest.raises(BadInput, match=said) if said else nullcontext():
        check_plan(plan(recipe, where, *settings))


def test_gpu_too_small_is_refused_with_the_least_change_that_fits():
    made = plan("r256_instruct", SMALL)
    assert made.overfull == ["learner GPU"]
    with pytest.raises(BadInput, match=r"learner GPU needs [\d.]+ GiB and has [\d.]+ on A40; it fits with ") as caught:
        check_plan(made)
    change = str(caught.value).rpartition("it fits with ")[2].split()
    assert plan("r256_instruct", SMALL, *change).fits
    for one in change:
        assert not plan("r256_instruct", SMALL, *(other for other in change if other != one)).fits
    assert plan("r256_instruct", replace(SMALL, gpu_memory=4 * GIB)).fits is False
    host = replace(CPU, host_memory=8 * GIB)
    assert plan("r8_qwen3", host, *remedy(plan("r8_qwen3", host))).fits


def test_a_budget_that_is_too_small_is_refused_with_one_that_is_enough():
    benchmarks = "eval.benchmarks=[{source: aime24, n: 256}, {source: 'hub:a/b', n: 8, limit: 40}]"
    for settings, budget, said in (([], "budget.minutes=0.01", ""), ([benchmarks], "budget.minutes=8", "benchmarks")):
        with pytest.raises(BadInput, match=f"{budget}: .*{said}") as caught:
            check_budget(plan("quickstart", CPU, *settings, budget))
        enough = str(caught.value).rpartition("at least ")[2]
        made = plan("quickstart", CPU, *settings, enough)
        check_budget(made)
        assert made.estimate
        assert EVALUATION_SAFETY * made.estimate.benchmarks_s <= MOST_EVALUATION * made.config.budget.seconds
    assert "aime24 (30 problems × 256), b (40 problems × 8)" in shown(plan("quickstart", CPU, benchmarks))
    with pytest.raises(BadInput, match=r"eval\.benchmarks"):
        check_budget(plan("quickstart", CPU, benchmarks, f"budget.minutes={0.8 * int(enough.rpartition('=')[2])}"))


def check_evaluation(where: Machine, recipe: str, *settings: str) -> Fit:
    config = load([f"conf={recipe}", *settings])
    return engines_alone(config, shape_of(config.model), where)


def gpu(name: str, gib: float) -> Machine:
    return with_gpus([Gpu("0", name, int(gib * GIB), None)], tuple(range(8)))


def test_an_evaluations_engine_is_that_of_a_run_with_more_memory():
    where, given = gpu("NVIDIA A40", 45), ("r8_instruct", "rollout.max_concurrent_samples=64")
    alone, beside = check_evaluation(where, *given), plan(given[0], where, given[1])
    assert [entry for entry in beside.memory if entry.place == "rollout GPU" and not entry.elastic] == alone.memory
    assert alone.cache_tokens > beside.cache_tokens


@pytest.mark.parametrize(
    ("where", "settings", "said"),
    [
        (gpu("Tesla T4", 15), [], r"Tesla T4 .*model\.dtype=bfloat16"),
        (gpu("NVIDIA L4", 4), [], r"rollout GPU .*4\.6 GiB.* 3\.8 .*NVIDIA L4"),
        (gpu("NVIDIA L4", 4.9), [], "KV cache holds .* tokens, .*; give a smaller"),
        (
            detect("cpu"),
            ["model.dtype=float32", *LONG, "rollout.kv_cache_gib=1"],
            r"18,\d{3} .*; give a larger rollout\.kv_cache_gib",
        ),
        (detect("cpu"), ["model.dtype=float32", *LONG, "rollout.kv_cache_gib=2"], ""),
    ],
)
def test_engines_that_do_not_fit_are_refused_with_the_remedy(where: Machine, settings: list[str], said: str):
    with pytest.raises(BadInput, match=said) if said else nullcontext():
        check_evaluation(where, "r8_instruct", *settings)

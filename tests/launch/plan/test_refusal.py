from dataclasses import replace

import pytest

from conf.errors import BadInput
from launch.hardware.machine import GIB
from launch.plan.refusal import check_budget, check_plan, remedy
from tests.launch.plan.plans import CPU, machine, plan


def test_large_model_without_gpu_is_refused_with_numbers() -> None:
    with pytest.raises(BadInput) as caught:
        check_plan(plan("r256_instruct", CPU))
    for words in ("1.5 billion", "GiB", "an update", "2 cores", "device=cpu", "device=A40", "conf=quickstart"):
        assert words in str(caught.value)


def test_device_cpu_insists() -> None:
    check_plan(plan("r256_instruct", CPU, "device=cpu"))


def test_card_too_small_is_refused_with_what_would_fit() -> None:
    small = replace(machine("A40"), gpu_memory=16 * GIB)
    made = plan("r256_instruct", small)
    assert made.overfull == ["learner GPU"]
    with pytest.raises(
        BadInput, match=r"the learner GPU needs [\d.]+ GiB and has [\d.]+ on A40; it fits with "
    ) as caught:
        check_plan(made)
    change = str(caught.value).rpartition("it fits with ")[2].split()
    assert plan("r256_instruct", small, *change).fits
    assert plan("r256_instruct", replace(small, gpu_memory=4 * GIB)).fits is False


def test_card_without_bfloat16_is_refused_for_it() -> None:
    made = plan("r8_instruct", machine("T4"))
    assert not made.fits
    with pytest.raises(BadInput, match=r"the T4 cannot compute in model\.dtype=bfloat16"):
        check_plan(made)
    assert plan("quickstart", machine("A40")).config.model.dtype == "bfloat16"
    with pytest.raises(BadInput, match=r"in bfloat16, not in model\.dtype=float32; it fits with model\.dtype=bfloat16"):
        check_plan(plan("quickstart", machine("A40"), "model.dtype=float32"))
    unlisted = replace(machine("A40"), rates={}, bandwidth=None)
    assert plan("r8_instruct", unlisted).fits
    assert not plan("r8_instruct", unlisted, "model.dtype=float32").fits


def test_only_what_is_needed_is_changed_to_make_it_fit() -> None:
    small = replace(machine("A40"), gpu_memory=16 * GIB)
    change = remedy(plan("r256_instruct", small))
    assert plan("r256_instruct", small, *change).fits
    for left_out in change:
        assert not plan("r256_instruct", small, *(one for one in change if one != left_out)).fits
    offloaded = plan("r256_instruct", machine("A100-80", host_memory=16 * GIB))
    assert offloaded.overfull == ["host"]
    assert remedy(offloaded) == ("learner.offload=none",)


def test_cache_that_holds_not_one_sample_is_refused() -> None:
    long = ("rollout.max_response_tokens=20000", "learner.tokens_per_microbatch=20512")
    made = plan("r8_qwen3", CPU, "device=cpu", *long, "learner.gradient_checkpointing=on")
    with pytest.raises(BadInput, match=r"18,724 tokens, .* rollout\.kv_cache_gib=3$"):
        check_plan(made)
    check_plan(
        plan("r8_qwen3", CPU, "device=cpu", *long, "learner.gradient_checkpointing=on", "rollout.kv_cache_gib=3")
    )
    assert plan("quickstart", CPU, "eval.max_response_tokens=8000").fits
    assert plan("quickstart", CPU, "eval.max_response_tokens=8000", "rollout.kv_cache_gib=1").fits


def test_host_too_small_is_refused() -> None:
    with pytest.raises(BadInput, match="host needs"):
        check_plan(plan("quickstart", replace(CPU, host_memory=2 * GIB)))


def test_card_that_is_not_there_is_for_plans_only() -> None:
    with pytest.raises(BadInput, match=r"device=A40: .*plan=true"):
        check_plan(plan("r8_instruct", replace(machine("A40"), present=False), "device=A40"))


@pytest.mark.parametrize("given", ["budget.minutes=0.01", "budget.hours=0.0001"])
def test_budget_that_the_start_alone_takes_is_refused_with_one_that_will_do(given: str) -> None:
    with pytest.raises(BadInput, match=given) as caught:
        check_budget(plan("quickstart", CPU, given))
    least = str(caught.value).rpartition("at least ")[2]
    check_budget(plan("quickstart", CPU, least))
    check_budget(plan("quickstart", CPU))

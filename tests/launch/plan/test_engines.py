from dataclasses import replace

import pytest

from actors.models.files import shape_of
from actors.runtime.placement import place_engines
from conf.errors import BadInput
from conf.load import load
from launch.hardware.cards import Card
from launch.hardware.machine import GIB, Machine, detect, with_cards
from launch.plan.engines import check_engines, fit_of_engines
from launch.plan.plan import Plan, make_plan

CORES = tuple(range(8))


def machine(card: str, gib: float) -> Machine:
    return with_cards([Card("0", card, int(gib * GIB), None)], CORES)


def check(where: Machine, recipe: str, *settings: str) -> Plan:
    config = load([f"conf={recipe}", *settings])
    shape, placement = shape_of(config.model), place_engines(where.cores, where.gpus)
    check_engines(config, shape, where, placement)
    return fit_of_engines(config, shape, where, placement)


def test_the_papers_models_fit_a_card_of_their_size() -> None:
    card = machine("NVIDIA A40", 45)
    config = load(["conf=r8_instruct"])
    alone, beside = check(card, "r8_instruct"), make_plan(config, card)
    assert [entry for entry in beside.memory if entry.place == "rollout GPU" and not entry.elastic] == [
        entry for entry in alone.memory if entry.place == "rollout GPU"
    ]
    assert alone.cache_tokens > beside.cache_tokens


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (machine("Tesla T4", 15), r"Tesla T4 .*model\.dtype=bfloat16"),
        (machine("NVIDIA L4", 4), r"rollout GPU .*4\.6 GiB.* 3\.6 .*NVIDIA L4"),
        (machine("NVIDIA L4", 5.2), "an engine's KV cache holds .* tokens, .*; give smaller"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_plans_reason(where: Machine, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check(where, "r8_instruct")


def test_a_cache_on_the_processor_holds_a_sample_or_is_refused() -> None:
    processor = replace(detect("cpu"), cores=CORES)
    settings = ["model.dtype=float32", "eval.max_response_tokens=20000"]
    check(processor, "r8_instruct", *settings, "rollout.kv_cache_gib=2")
    with pytest.raises(BadInput, match=r"18,\d{3} .* 20,\d{3}, .*; give larger rollout\.kv_cache_gib"):
        check(processor, "r8_instruct", *settings, "rollout.kv_cache_gib=1")

import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from actors.runtime.placement import Node
from conf.devices import devices
from conf.errors import BadInput
from conf.load import load
from conf.sizes import activation_bytes
from launch.plan.forecast import forecast, updates_in_budget
from launch.plan.machine import GIB, Machine
from launch.plan.plan import Plan, duration, make_plan, refusal, remedy
from launch.plan.view import render
from launch.session.resume import resolve_dtype

CPU = Machine("a laptop", (0, 1), 16 * GIB, 0, 0, 10e9, {"bfloat16": 0.3e12, "float32": 0.2e12})


def machine(card: str, gpus: int = 1, host_memory: int | None = 128 * GIB) -> Machine:
    entry = devices()[card]
    memory = int(entry.memory_gib * GIB)
    return Machine(card, tuple(range(16)), host_memory, gpus, memory, entry.bandwidth_gbs * 1e9, entry.rates)


def plan(recipe: str, where: Machine, *overrides: str) -> Plan:
    config = load([f"conf={recipe}", *overrides])
    resolve_dtype(config, where)
    return make_plan(config, where)


def entry(made: Plan, what: str) -> float:
    return next(memory.bytes for memory in made.memory if memory.what == what)


def test_quickstart_fits_a_laptop_and_makes_updates() -> None:
    made = plan("quickstart", CPU)
    refusal(made)
    assert made.fits
    assert made.estimate
    assert made.estimate.together
    assert made.estimate.update_s < 20


def test_sizes_at_rank_256_follow_the_shape() -> None:
    made = plan("r256_instruct", machine("A40"))
    refusal(made)
    trained = 256 * 1_154_048
    assert entry(made, "learner: optimizer") == (16 + 2) * trained  # in host memory
    assert entry(made, "engine: adapter slots") == 2 * trained * 2
    assert entry(made, "engine: KV cache, at least") == 8 * 4096 * 28_672
    assert (
        entry(made, "engine: base weights") == entry(made, "learner: base weights") == pytest.approx(3.09e9, rel=0.01)
    )


def test_adapter_slots_are_as_large_as_vllm_pads_them() -> None:
    slots = [entry(plan("quickstart", CPU, f"lora.rank={rank}"), "engine: adapter slots") for rank in (33, 64)]
    assert slots[0] == slots[1]


def test_cache_takes_what_the_share_has_left() -> None:
    made = plan("r8_instruct", machine("A40"))
    fixed = made.needed("rollout GPU") - entry(made, "engine: KV cache, at least")
    assert made.sequences == (made.room["rollout GPU"] - fixed) // (4096 * 28_672)  # type: ignore[operator]


@pytest.mark.parametrize("rank", [8, 64, 256])
@pytest.mark.parametrize("model", ["instruct", "llama", "math", "qwen3", "deepscaler"])
def test_the_papers_grid_fits_its_card_and_its_day(model: str, rank: int) -> None:
    made = plan(f"r{rank}_{model}", machine("A40"))
    refusal(made)
    assert made.fits
    assert updates_in_budget(made, forecast(made)) >= 300


def test_more_memory_holds_more_samples() -> None:
    small, large = (plan("r8_instruct", machine(card)) for card in ("A40", "A100-80"))
    extra = large.room["rollout GPU"] - small.room["rollout GPU"]  # type: ignore[operator]
    assert large.sequences - small.sequences == pytest.approx(extra / (4096 * 28_672), abs=1)


def test_activations_of_the_embedded_model_are_what_autograd_saves() -> None:
    shape = load(["conf=quickstart"]).model.shape
    assert activation_bytes(shape, rank=32, size=2) / 30 == pytest.approx(22_772, rel=0.01)


def test_one_card_works_in_turn_and_two_at_the_same_time() -> None:
    one, two = (plan("r8_instruct", machine("A40", gpus)).estimate for gpus in (1, 2))
    assert one
    assert two
    assert not one.together
    assert two.together
    assert two.update_s < one.update_s


def test_cards_are_given_to_the_learner_while_that_makes_updates_shorter() -> None:
    places = {gpus: plan("r8_instruct", machine("A40", gpus)).placement for gpus in (1, 2, 4, 16)}
    split = {gpus: (len(p.rollouts), len(p.learners)) for gpus, p in places.items()}
    assert split == {1: (1, 1), 2: (1, 1), 4: (3, 1), 16: (14, 2)}
    derived, asked = plan("r8_instruct", machine("A40", 16)), plan("r8_instruct", machine("A40", 16), "learner.ranks=1")
    assert len(asked.placement.learners) == 1
    assert derived.estimate
    assert asked.estimate
    assert derived.estimate.update_s < asked.estimate.update_s


def test_ranks_that_take_turns_with_rollouts_are_weighed_by_that() -> None:
    placement = plan("r256_instruct", machine("A40", 4), "learner.max_staleness=0").placement
    update_s = {}
    for ranks in (1, 2, 3):
        estimate = plan(
            "r256_instruct", machine("A40", 4), "learner.max_staleness=0", f"learner.ranks={ranks}"
        ).estimate
        assert estimate
        assert not estimate.together
        update_s[ranks] = estimate.update_s
    assert len(placement.learners) == min(update_s, key=lambda ranks: update_s[ranks])


def test_ranks_that_the_host_has_no_memory_for_are_not_chosen() -> None:
    many = plan("r8_instruct", machine("A40", 16))
    assert len(many.placement.learners) == 2
    short = plan("r8_instruct", machine("A40", 16, host_memory=int(many.needed("host")) - 1))
    assert short.fits
    assert len(short.placement.learners) > 2


def test_every_engine_of_the_host_counts() -> None:
    one, two = (plan("quickstart", CPU, f"rollout.actors={actors}") for actors in (1, 2))
    for what in ("base weights", "adapter slots", "adapters as loaded", "KV cache", "processes"):
        assert entry(two, f"engine: {what}") == 2 * entry(one, f"engine: {what}")
    one, four = (plan("r256_instruct", machine("A40", gpus), "learner.ranks=1") for gpus in (2, 5))
    assert entry(four, "engine: adapters as loaded") == 4 * entry(one, "engine: adapters as loaded")
    assert entry(four, "engine: base weights") == entry(one, "engine: base weights")


def test_of_a_cluster_the_host_holds_what_runs_on_it() -> None:
    nodes = tuple(Node(str(number), tuple(range(16)), 1) for number in range(64))
    one = plan("r8_instruct", machine("A40", 64), "learner.ranks=2")
    spread = plan("r8_instruct", replace(machine("A40", 64), nodes=nodes), "learner.ranks=2")
    assert one.overfull == ["host"]
    assert entry(spread, "learner: process") == entry(one, "learner: process") / 2
    assert not any(memory.what == "engine: processes" for memory in spread.memory)
    pair = tuple(Node(str(number), (0, 1), 0) for number in range(2))
    away = plan("quickstart", replace(CPU, nodes=pair))
    assert not any(memory.what.startswith("engine") for memory in away.memory)
    assert away.sequences == plan("quickstart", CPU).sequences


def test_ranks_on_a_processor_hold_a_model_each_and_one_optimizer() -> None:
    one, two = (plan("quickstart", CPU, f"learner.ranks={ranks}") for ranks in (1, 2))
    assert len(two.placement.learners) == 2
    for what, factor in (("base weights", 2), ("activations", 2), ("optimizer", 1)):
        assert entry(two, f"learner: {what}") == factor * entry(one, f"learner: {what}")
    assert two.estimate
    assert not two.estimate.together
    screen = StringIO()
    Console(width=120, file=screen).print(render(two, forecast(two)))
    assert "learner × 2  core 0; core 1" in screen.getvalue()


@pytest.mark.parametrize(
    ("where", "ranks", "most"),
    [(CPU, 3, 2), (machine("A40"), 2, 1), (machine("A40", 2), 2, 1), (machine("A40", 4), 4, 3)],
)
def test_too_many_ranks_are_refused(where: Machine, ranks: int, most: int) -> None:
    with pytest.raises(BadInput, match=rf"learner.ranks={ranks}: too many for .*; use at most {most}"):
        plan("quickstart", where, f"learner.ranks={ranks}")
    assert len(plan("quickstart", where, f"learner.ranks={most}").placement.learners) == most


def test_synchronous_runs_never_overlap() -> None:
    made = plan("r8_instruct", machine("A40", 2), "learner.max_staleness=0")
    assert made.estimate
    assert not made.estimate.together


def test_rank_costs_time_and_memory() -> None:
    low, high = (plan(recipe, machine("A40")) for recipe in ("r8_instruct", "r256_instruct"))
    assert low.estimate
    assert high.estimate
    assert low.estimate.update_s < high.estimate.update_s
    assert all(low.needed(place) < high.needed(place) for place in low.room)


def test_what_the_learner_repeats_costs_time_and_what_it_keeps_costs_memory() -> None:
    plain = plan("r8_instruct", machine("A40"), "learner.gradient_checkpointing=off")
    again = plan("r8_instruct", machine("A40"), "learner.gradient_checkpointing=on")
    steps = plan("r8_instruct", machine("A40"), "algorithm.preset=dapo", "algorithm.steps_per_batch=2")
    base = plan("r8_instruct", machine("A40"), "algorithm.kl=0.001")
    assert plain.costs
    for other, factor in ((again, 1.5), (steps, 2.0), (base, 1.5)):
        assert other.costs
        assert other.costs.learn_s == pytest.approx(factor * plain.costs.learn_s, rel=0.05)
    assert entry(again, "learner: activations") < entry(plain, "learner: activations") / 5


def test_small_optimizers_stay_on_the_card() -> None:
    for recipe, place in (("r8_instruct", "learner GPU"), ("r256_instruct", "host")):
        memory = plan(recipe, machine("A40")).memory
        assert [m.place for m in memory if m.what == "learner: optimizer"] == [place]


def test_reward_workers_asked_for_win() -> None:
    assert plan("quickstart", CPU, "reward.workers=3").placement.reward_workers == 3
    assert plan("quickstart", CPU).placement.reward_workers == 1


def test_large_model_without_gpu_is_refused_with_numbers() -> None:
    with pytest.raises(BadInput) as caught:
        refusal(plan("r256_instruct", CPU))
    for words in ("1.5 billion", "GiB", "an update", "2 cores", "device=cpu", "device=A40", "conf=quickstart"):
        assert words in str(caught.value)


def test_device_cpu_insists() -> None:
    refusal(plan("r256_instruct", CPU, "device=cpu"))


def test_card_too_small_is_refused_with_what_would_fit() -> None:
    small = replace(machine("A40"), gpu_memory=16 * GIB)
    made = plan("r256_instruct", small)
    assert made.overfull == ["learner GPU"]
    with pytest.raises(
        BadInput, match=r"the learner GPU needs [\d.]+ GiB and has [\d.]+ on A40; it fits with "
    ) as caught:
        refusal(made)
    change = str(caught.value).rpartition("it fits with ")[2].split()
    assert plan("r256_instruct", small, *change).fits
    assert plan("r256_instruct", replace(small, gpu_memory=4 * GIB)).fits is False


def test_card_without_bfloat16_is_refused_for_it() -> None:
    made = plan("r8_instruct", machine("T4"))
    assert not made.fits
    with pytest.raises(BadInput, match=r"the T4 cannot compute in model\.dtype=bfloat16"):
        refusal(made)
    assert plan("quickstart", machine("A40")).config.model.dtype == "bfloat16"
    with pytest.raises(BadInput, match=r"in bfloat16, not in model\.dtype=float32; it fits with model\.dtype=bfloat16"):
        refusal(plan("quickstart", machine("A40"), "model.dtype=float32"))
    unlisted = replace(machine("A40"), rates={}, bandwidth=None)
    assert plan("r8_instruct", unlisted).fits
    assert not plan("r8_instruct", unlisted, "model.dtype=float32").fits


def test_only_what_is_needed_is_changed_to_make_it_fit() -> None:
    small = replace(machine("A40"), gpu_memory=16 * GIB)
    change = remedy(plan("r256_instruct", small))
    assert plan("r256_instruct", small, *change).fits
    for left_out in change:
        assert not plan("r256_instruct", small, *(one for one in change if one != left_out)).fits
    offloaded = plan("r256_instruct", machine("A100-80", host_memory=8 * GIB))
    assert offloaded.overfull == ["host"]
    assert remedy(offloaded) == ("learner.offload=none",)


def test_cache_that_holds_not_one_sample_is_refused() -> None:
    long = ("rollout.max_response_tokens=20000", "learner.tokens_per_microbatch=20512")
    made = plan("r8_qwen3", CPU, "device=cpu", *long, "learner.gradient_checkpointing=on")
    with pytest.raises(BadInput, match=r"KV cache holds 18,724 tokens, .* fits with rollout\.kv_cache_gib=3$"):
        refusal(made)
    refusal(plan("r8_qwen3", CPU, "device=cpu", *long, "learner.gradient_checkpointing=on", "rollout.kv_cache_gib=3"))
    assert plan("quickstart", CPU, "eval.max_response_tokens=8000").fits
    assert plan("quickstart", CPU, "eval.max_response_tokens=8000", "rollout.kv_cache_gib=1").fits


def test_host_too_small_is_refused() -> None:
    with pytest.raises(BadInput, match="host needs"):
        refusal(plan("quickstart", replace(CPU, host_memory=2 * GIB)))


def test_card_that_is_not_there_is_for_plans_only() -> None:
    with pytest.raises(BadInput, match="device=A40: this machine has no A40; add plan=true"):
        refusal(plan("r8_instruct", replace(machine("A40"), present=False), "device=A40"))


def test_shape_is_read_where_it_is_not_declared(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,'
        ' "vocab_size": 100, "max_position_embeddings": 256, "tie_word_embeddings": true}'
    )
    assert plan("quickstart", CPU, f"model.path={tmp_path}").shape.layers == 2
    with pytest.raises(BadInput, match="exceed the 256"):
        plan("quickstart", CPU, f"model.path={tmp_path}", "rollout.max_response_tokens=200")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("card", [None, *devices(), "unlisted"])
def test_plan_reads_within_the_screen(card: str | None, width: int) -> None:
    where = CPU if card is None else machine("A40" if card == "unlisted" else card)
    if card == "unlisted":
        where = replace(where, name="a new card", bandwidth=None, rates={})
    made = plan("r256_instruct", where)
    screen = StringIO()
    Console(width=width, file=screen).print(render(made, forecast(made) if made.estimate else None))
    text = screen.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for words in ("rank 256", "knoveleng/open-rs", "24 h", "rollout", "learner", "fit"):
        assert words in text


def test_planning_needs_no_framework() -> None:
    script = (
        "import sys; from conf.load import load; from launch.plan.machine import detect;"
        "from launch.plan.plan import make_plan;"
        "from launch.plan.view import render, render_scaling;"
        "from launch.plan.forecast import forecast, options, scale;"
        "machine = detect('A40'); plan = make_plan(load(['conf=r256_instruct']), machine);"
        "render(plan, forecast(plan), tuple(options(plan)));"
        "render_scaling(plan, tuple(scale(plan, machine, [1, 2], plan.calibration)));"
        "assert not {'torch', 'ray', 'vllm', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (90, "90 s"), (600, "10 min"), (86400, "24 h"), (259200, "3 days")]
)
def test_durations_are_in_a_persons_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text

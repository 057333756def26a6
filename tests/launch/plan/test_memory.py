from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.runtime.placement import CUDA_CONTEXT, Node
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import GIB, Machine, with_gpus
from microbudget_rl.launch.plan.memory import misfit
from microbudget_rl.launch.plan.plan import Plan
from tests.launch.plan.plans import CPU, entry, machine, plan, shown

A40 = machine("A40")


@pytest.mark.parametrize("where", [CPU, A40, machine("A40", 4)])
def test_a_place_needs_the_sum_of_its_parts_and_an_engine_takes_what_its_share_has_left(where: Machine):
    made = plan("quickstart", where)
    assert sum(map(made.needed, made.available)) == sum(part.bytes for part in made.memory)
    assert {part.place for part in made.memory} == set(made.available)
    if where.gpus:
        share = made.placement.rollouts[0]
        assert made.held(replace(share, memory=share.memory / 2), 100) < made.held(share, 100)


def holding(total: float, *held: float) -> Machine:
    """A machine with GPUs of so many GiB, of which other processes hold parts."""
    gpus = [Gpu(str(held), "NVIDIA GeForce RTX 3060", int(total * GIB), int((total - each) * GIB)) for each in held]
    return replace(with_gpus(gpus, tuple(range(16))), mps=True, host_memory=64 * GIB)


@settings(max_examples=25)
@given(st.sampled_from(["gsm8k", "gsm8k_1.5b", "qwen2.5-7b"]), st.floats(7.8, 48), st.floats(0, 4))
def test_shares_contexts_and_what_others_hold_never_exceed_a_gpu(recipe: str, total: float, held: float):
    made = plan(recipe, holding(total, held))
    kinds = (*made.placement.rollouts, *made.placement.learners, *filter(None, [made.placement.weights]))
    if made.fits:
        assert held * GIB + sum(share.memory * total * GIB + CUDA_CONTEXT for share in kinds) <= total * GIB


def test_a_plan_is_chosen_for_the_memory_that_is_free():
    free, held = plan("gsm8k", holding(11.76, 0)), plan("gsm8k", holding(11.76, 3))
    assert (free.fits, held.fits, held.tight) == (True, True, False)
    assert (free.config.learner.recomputes, held.config.learner.recomputes) == (False, True)
    assert not plan("gsm8k", holding(11.76, 8)).fits
    two = plan("gsm8k", holding(11.76, 1.2, 0))
    assert all(share.memory * 11.76 * GIB + CUDA_CONTEXT < 10.56 * GIB for share in two.placement.rollouts)
    cluster = replace(holding(40, 30, 0), nodes=(Node("a", (0,), 2),))  # Ray may choose either
    assert (cluster.free(1), holding(40, 30, 0).free(1)) == (0.25, 1.0)
    full = plan("gsm8k", holding(11.76, 11, 0))
    assert (full.fits, "CUDA_VISIBLE_DEVICES" in misfit(full)) == (False, True)
    assert plan("gsm8k", holding(11.76, 11, 0, 0), "rollout.actors=1", "learner.world_size=1").fits


def grown(before: Plan, after: Plan) -> set[str]:
    """The parts that need more bytes in the second plan."""
    known = {part.what: part.bytes for part in before.memory}
    return {part.what for part in after.memory if part.bytes > known.get(part.what, 0)}


ADAPTER = {"engine: adapter slots", "engine: adapters as loaded"}
TRAINED = {"learner: adapter, gradients", "learner: activations", "learner: optimizer", "learner: checkpoint"}


@pytest.mark.parametrize(
    ("where", "less", "more", "parts"),
    [
        (A40, "lora.rank=64", "lora.rank=256", ADAPTER | TRAINED),
        (A40, "learner.max_staleness=1", "learner.max_staleness=2", ADAPTER),
        (CPU, "lora.rank=33", "lora.rank=64", {"engine: adapters as loaded"} | TRAINED),  # vLLM pads to 64
        (A40, "learner.tokens_per_microbatch=4096", "learner.tokens_per_microbatch=8192", {"learner: activations"}),
        (A40, "learner.logprob_chunk=256", "learner.logprob_chunk=512", {"learner: chunk of logits"}),
        (A40, "rollout.samples_per_problem=4", "rollout.samples_per_problem=8", {"engine: KV cache, at least"}),
        (CPU, "rollout.kv_cache_gib=1", "rollout.kv_cache_gib=2", {"engine: KV cache"}),
        (A40, "warm_start.source=", "warm_start.source=self", {"learner: reference", "learner: checkpoint"}),
        (CPU, "learner.gradient_checkpointing=on", "learner.gradient_checkpointing=off", {"learner: activations"}),
    ],
)
def test_a_setting_takes_the_memory_of_its_parts_alone(where: Machine, less: str, more: str, parts: set[str]):
    given = ("lora.alpha=16", "learner.gradient_checkpointing=on", "rollout.max_concurrent_samples=64")
    kept = [each for each in given if each.partition("=")[0] != less.partition("=")[0]]
    before, after = (plan("r8_instruct" if where.gpus else "quickstart", where, *kept, each) for each in (less, more))
    assert grown(before, after) == parts
    assert not grown(after, before)


@pytest.mark.parametrize("key", ["rollout.actors", "learner.world_size"])
def test_every_process_of_the_host_counts_and_shares_one_optimizer(key: str):
    one, two = (plan("quickstart", CPU, f"{key}={number}") for number in (1, 2))
    side = "engine" if key == "rollout.actors" else "learner"
    factors = {part.what: entry(two, part.what) / part.bytes for part in one.memory}
    own = {what: factor for what, factor in factors.items() if what.startswith(side)}
    assert {what for what, factor in own.items() if factor != 2} <= {"learner: optimizer", "learner: checkpoint"}
    assert {factor for what, factor in factors.items() if what not in own} == {1}
    assert ("2 × core 0; 1" in shown(two)) == (side == "learner")


def test_the_first_node_of_a_cluster_holds_its_own_processes():
    nodes = tuple(Node(str(number), tuple(range(16)), 2) for number in range(3))
    cluster = replace(machine("A40", 6), nodes=nodes)
    made, alone = (plan("r256_instruct", where, "learner.world_size=3") for where in (cluster, machine("A40", 6)))
    assert not any(part.what == "engine: processes" for part in made.memory)
    assert entry(made, "learner: process") == pytest.approx(entry(alone, "learner: process") * 2 / 3)
    assert made.needed("host") < alone.needed("host")
    away = plan("quickstart", replace(CPU, nodes=tuple(Node(str(number), (0, 1), 0) for number in range(2))))
    assert not any(part.what.startswith("engine:") for part in away.memory)

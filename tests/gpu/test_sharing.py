"""An engine and a learner in their shares of one GPU, as in a run, at rank 256 on the bundled model."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load_file

from microbudget_rl.actors.adapter_check.prompts import distance, logprobs_of
from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Problem, Request, Sampling, UpdateStats
from microbudget_rl.actors.models.files import locate
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.rollout.actor import AdapterTransfer, RemoteEngine, RolloutActor
from microbudget_rl.actors.runtime.placement import Placement
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import GIB, Machine
from microbudget_rl.launch.plan.plan import Plan, make_plan
from microbudget_rl.launch.session.actors import bundle, reserve_learners, start_learners
from microbudget_rl.learner.actor import RemoteLearner
from tests.conftest import build_group
from tests.gpu.conftest import memory_used

CONTEXT = 1.0
"""GiB of a GPU of a process beyond its share, at most: CUDA's context, NCCL, and nvidia-smi's rounding."""

PROBLEM = Problem("p0", "a prompt", tuple(range(1000, 1040)), "1")
SAMPLING = Sampling(8, 48, 1.0, 1.0, 1)
AGREE = 0.1
"""Largest mean |Δ log p| between two correct computations of one model in bfloat16."""


def settings(machine: Machine) -> Config:
    given = "conf=quickstart lora.rank=256 lora.alpha=512 learner.learning_rate=1e-3 learner.schedule=constant"
    sizes = "learner.tokens_per_microbatch=4096 rollout.max_prompt_tokens=256 rollout.max_response_tokens=768"
    return load([*given.split(), *sizes.split(), f"model.dtype={machine.dtype}", "model.shared_weights=off"])


def plan_of(machine: Machine) -> Plan:
    """Return the plan, with shares of the GPU that also hold the optimizer, which one test moves there: on 8 GB only if
    activations are computed twice.
    """
    roomy = make_plan(changed(settings(machine), {"learner.offload": "none"}), machine)
    if not roomy.fits:
        pytest.skip(f"{machine.gpu_memory / GIB:.1f} GiB are too few for engine, learner and optimizer")
    same = {"learner.gradient_checkpointing": roomy.config.learner.gradient_checkpointing}
    return replace(make_plan(changed(settings(machine), same), machine), placement=roomy.placement)


class Rig:
    """Both sides on one GPU, started in the order of a run. used: used bytes before and with the engine."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.config = plan.config
        self.model = locate(self.config.model)
        self.runner = asyncio.Runner()
        self.run: Callable[..., Any] = self.runner.run
        self.used = [memory_used()]
        self.run(self._start())

    async def _start(self) -> None:
        self.group = await reserve_learners(self.plan.placement)
        share = self.plan.placement.rollouts[0]
        facts, place = (share, self.config, self.model, share), bundle(self.group, share.beside)
        self.engine = RemoteEngine(AdapterTransfer(2), RolloutActor, "rollout-0", *facts, bundle=place)
        await self.engine.ready()
        self.used.append(memory_used())
        self.learner, self.ranks = await self.start_learner(self.config)

    async def start_learner(self, config: Config) -> tuple[RemoteLearner, list[RemoteActor]]:
        while "learner-0" in ray.util.list_named_actors():  # Ray forgets an ended actor with a delay
            await asyncio.sleep(0.2)
        folder = str(self.folder / "adapters")
        ranks = start_learners(config, self.model, self.plan.placement, folder, self.group)
        learner = RemoteLearner(ranks, WallClock(), print)
        await learner.publish()
        return learner, ranks

    def update(self, learner: RemoteLearner, batch: Batch) -> UpdateStats:
        self.run(learner.accumulate(batch))
        return self.run(learner.step(1e-4))


def inside(actor: RemoteActor, look: Callable[[Any], Any]) -> Any:
    """Return the result of a function that runs in an actor's process."""
    return ray.get(actor._process.handle.__ray_call__.remote(look))


@contextmanager
def ray_for(placement: Placement) -> Iterator[None]:
    cpus = sum(share.threads for share in (*placement.rollouts, *placement.learners)) + 1
    ray.init(address="local", num_cpus=cpus, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def rig(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    os.environ["RAY_process_group_cleanup_enabled"] = "1"
    plan = plan_of(machine)
    with ray_for(plan.placement):
        rig = Rig(plan, tmp_path_factory.mktemp("gpu"))
        yield rig
        for actor in (rig.engine, rig.learner):
            rig.run(actor.close())
        rig.runner.close()


async def distances(learner: RemoteLearner, group: Group) -> dict[str, float]:
    """Return the mean |Δ log p| of samples under a synthetic adapter from each of the learner's views of them."""
    views = await learner.explain((group,))
    return {name: distance(logprobs_of((group,)), view) for name, view in views.items()}


def batch(rig: Rig) -> Batch:
    """Return a batch of the run's size in which every sample has full length, so that micro-batches are full."""
    rewards = tuple(float(number % 2) for number in range(rig.config.rollout.samples_per_problem))
    numbers, adapter = range(rig.config.learner.problems_per_update), AdapterRef(0, 0, "nowhere")
    return Batch(0, tuple(build_group(number, rewards, adapter, 256, (768, 768)) for number in numbers))


def test_both_sides_keep_to_their_shares(rig: Rig):
    peak = rig.update(rig.learner, batch(rig)).metrics["learner/peak_memory"] / GIB
    before, engine, both = (used / GIB for used in (*rig.used, memory_used()))
    plan, memory = rig.plan, rig.plan.machine.gpu_memory / GIB
    cache = inside(rig.engine, lambda actor: actor.vllm_config.cache_config)
    held = cache.num_gpu_blocks * cache.block_size // rig.config.rollout.longest
    rollout, learner = (shares[0].memory * memory for shares in (plan.placement.rollouts, plan.placement.learners))
    for name, least, found, planned, most in (
        ("rollout, GiB of the GPU", 0.8 * rollout, engine - before, rollout, rollout + CONTEXT),
        ("learner, GiB of the GPU", 0, both - engine, learner, learner + CONTEXT),
        ("learner, GiB of tensors at the peak", 0, peak, needed := plan.needed("learner GPU") / GIB, needed),
        ("samples of full length in the KV cache", 0.9 * plan.sequences, held, plan.sequences, held + 1),
    ):
        print(f"{name:<40} {found:8.2f} found {planned:8.2f} planned")
        assert least < found < most


def test_a_killed_engine_restarts_beside_the_learner(rig: Rig):
    before = inside(rig.engine, lambda actor: actor.vllm_config.cache_config.num_gpu_blocks)
    adapter, _ = rig.run(rig.learner.publish_synthetic())
    os.kill(inside(rig.engine, lambda _: os.getpid()), signal.SIGKILL)
    with pytest.raises(ActorDied):
        rig.run(rig.engine.load(adapter))
    rig.run(rig.engine.revive())
    rig.run(rig.engine.load(adapter))
    group = rig.run(rig.engine.generate(Request(0, PROBLEM, adapter, SAMPLING)))
    assert rig.run(distances(rig.learner, group))[FAITHFUL] < AGREE
    assert inside(rig.engine, lambda actor: actor.vllm_config.cache_config.num_gpu_blocks) == before
    assert memory_used() < rig.plan.machine.gpu_memory


def test_optimizer_in_host_memory_takes_the_same_steps(rig: Rig):
    """DeepSpeed's CPU Adam and AdamW on the GPU give the same adapter; the former needs less GPU memory."""
    rig.run(rig.learner.close())

    def step(offload: str) -> tuple[str, float, dict[str, torch.Tensor]]:
        learner, ranks = rig.run(rig.start_learner(changed(rig.config, {"learner.offload": offload})))
        stats = rig.update(learner, batch(rig))
        kind = inside(ranks[0], lambda actor: type(actor.learner._optimizer._adam).__name__)
        weights = load_file(Path(stats.adapter.path, "adapter_model.safetensors"))
        rig.run(learner.close())
        return kind, stats.metrics["learner/peak_memory"], weights

    (kind, host_peak, host), (_, gpu_peak, gpu) = step("cpu"), step("none")
    print(f"{kind} on the host: {host_peak / GIB:.2f} GiB of the GPU at the peak, on the GPU {gpu_peak / GIB:.2f}")
    assert kind == "DeepSpeedCPUAdam"
    assert host_peak < gpu_peak
    there, here = (torch.cat([of[name].float().flatten() for name in gpu if "lora_B" in name]) for of in (gpu, host))
    assert there.norm() > 0
    # A first step follows the gradients' signs, which the flash kernel's rounding flips near zero. Two unrelated steps
    # would be 1.4 apart.
    assert (here - there).norm() < 0.3 * there.norm()

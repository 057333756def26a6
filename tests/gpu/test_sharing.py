"""An engine and a learner in their shares of one GPU, as in a run, at rank 256 on the bundled model."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import ray
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Problem, Sampling, UpdateStats
from microbudget_rl.actors.models.files import locate
from microbudget_rl.actors.rollout.actor import AdapterTransfer, RemoteEngine, RolloutActor
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import GIB, Machine
from microbudget_rl.launch.plan.plan import Plan, make_plan
from microbudget_rl.launch.session.actors import bundle, reserve_learners, start_learners
from microbudget_rl.learner.actor import RemoteLearner
from tests.gpu.conftest import memory_used

CONTEXT = GIB
"""GPU memory of a process beyond its share, at most: CUDA's context, NCCL, and nvidia-smi's rounding."""

PROBLEM = Problem("p0", "a prompt", tuple(range(1000, 1040)), "1")
AGREE = 0.1
"""Largest mean |Δ log p| between two correct computations of one model in bfloat16."""


def settings(machine: Machine) -> Config:
    config = load(["conf=quickstart", "lora.rank=256", "lora.alpha=512", "learner.learning_rate=1e-3"])
    return changed(
        config,
        {
            "learner.schedule": "constant",
            "model.dtype": machine.dtype,
            "model.shared_weights": "off",
            "learner.tokens_per_microbatch": 4096,
            "rollout.max_prompt_tokens": 256,
            "rollout.max_response_tokens": 768,
        },
    )


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
        self.used = [memory_used()]
        self.run(self._start())

    async def _start(self) -> None:
        self.group = await reserve_learners(self.plan.placement)
        self.engine = RemoteEngine(
            AdapterTransfer(2),
            RolloutActor,
            "rollout-0",
            self._share,
            self.config,
            self.model,
            self._share,
            bundle=bundle(self.group, self._share.beside),
        )
        await self.engine.ready()
        self.used.append(memory_used())
        self.learner, self.ranks = await self.start_learner(self.config)

    @property
    def _share(self) -> Any:
        return self.plan.placement.rollouts[0]

    async def start_learner(self, config: Config) -> tuple[RemoteLearner, list[RemoteActor]]:
        while "learner-0" in ray.util.list_named_actors():  # Ray forgets an ended actor with a delay
            await asyncio.sleep(0.2)
        folder = str(self.folder / "adapters")
        ranks = start_learners(config, self.model, self.plan.placement, folder, self.group)
        learner = RemoteLearner(ranks, WallClock(), print)
        await learner.publish()
        return learner, ranks

    def run(self, work: Any) -> Any:
        async def finish() -> Any:
            return await work

        return self.runner.run(finish())

    def generate(self, adapter: AdapterRef | None, samples: int = 8, tokens: int = 48, seed: int = 1) -> Group:
        return self.run(self.engine.generate(0, PROBLEM, adapter, Sampling(samples, tokens, 1.0, 1.0, seed)))

    def update(self, learner: RemoteLearner, batch: Batch) -> UpdateStats:
        self.run(learner.accumulate(batch))
        return self.run(learner.step(0.0))


def inside(actor: RemoteActor, look: Callable[[Any], Any]) -> Any:
    """Return the result of a function that runs in an actor's process."""
    return ray.get(actor._process.handle.__ray_call__.remote(look))


@pytest.fixture(scope="module")
def rig(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    os.environ["RAY_process_group_cleanup_enabled"] = "1"
    plan = plan_of(machine)
    shares = (*plan.placement.rollouts, *plan.placement.learners)
    cpus = sum(share.threads for share in shares)
    ray.init(address="local", num_cpus=cpus, num_gpus=1, include_dashboard=False, log_to_driver=False)
    rig = Rig(plan, tmp_path_factory.mktemp("gpu"))
    yield rig
    rig.run(rig.engine.close())
    rig.run(rig.learner.close())
    rig.runner.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def adapters(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Return versions 101 and 102, on all modules, far from the base model and from each other."""
    references = []
    for version in (101, 102):
        torch.manual_seed(version)
        base = AutoModelForCausalLM.from_pretrained(rig.model, dtype=torch.float32)
        lora = LoraConfig(r=256, lora_alpha=512, target_modules=list(rig.config.lora.target_modules))
        model = get_peft_model(base, lora)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
        path = tmp_path_factory.mktemp(f"v{version}")
        model.to(torch.bfloat16).save_pretrained(str(path))  # as large a file as a run's
        references.append(AdapterRef(version, 0, str(path)))
    return references


def cache_blocks(actor: Any) -> int:
    return int(actor.vllm_config.cache_config.num_gpu_blocks)


def disagreement(group: Group, model: str, adapter: AdapterRef | None) -> float:
    """Return the mean |Δ log p| between the engine's log-probabilities and PEFT's in float32."""
    reference: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        reference = PeftModel.from_pretrained(reference, adapter.path)
    differences = []
    prompt = group.problem.prompt_ids
    for sample in group.samples:
        ids = torch.tensor([[*prompt, *sample.token_ids]])
        with torch.no_grad():
            logprobs = reference(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logprobs.gather(1, ids[0, len(prompt) :, None]).squeeze(1)
        differences += (expected - torch.tensor(list(sample.logprobs))).abs().tolist()
    return fmean(differences)


def batch(rig: Rig, build_group: Callable[..., Group], version: int = 0, incarnation: int = 0) -> Batch:
    """Return a batch of the run's size in which every sample has full length, so that micro-batches are full."""
    rewards = tuple(float(number % 2) for number in range(rig.config.rollout.samples_per_problem))
    return Batch(
        version,
        tuple(
            build_group(number, rewards, AdapterRef(version, incarnation, "nowhere"), 256, (768, 768))
            for number in range(rig.config.learner.problems_per_update)
        ),
    )


def test_both_sides_keep_to_their_shares(rig: Rig, build_group: Callable[..., Group]) -> None:
    metrics = rig.update(rig.learner, batch(rig, build_group)).metrics
    before, engine, both = *rig.used, memory_used()
    plan, memory = rig.plan, rig.plan.machine.gpu_memory
    length = rig.config.rollout.longest
    cache = inside(rig.engine, lambda actor: actor.vllm_config.cache_config)
    held = cache.num_gpu_blocks * cache.block_size // length
    rollout, learner = (shares[0].memory * memory for shares in (plan.placement.rollouts, plan.placement.learners))
    for name, found, planned in (
        ("rollout, GiB of the GPU", (engine - before) / GIB, rollout / GIB),
        ("learner, GiB of the GPU", (both - engine) / GIB, learner / GIB),
        ("learner, GiB of tensors at the peak", metrics["learner/peak_memory"] / GIB, plan.needed("learner GPU") / GIB),
        ("samples of full length in the KV cache", held, plan.sequences),
    ):
        print(f"{name:<40} {found:8.2f} found {planned:8.2f} planned")
    assert 0.8 * rollout < engine - before < rollout + CONTEXT
    assert both - engine < learner + CONTEXT
    assert metrics["learner/peak_memory"] < plan.needed("learner GPU")
    assert held > 0.9 * plan.sequences


def test_adapters_are_swapped_during_requests(rig: Rig, adapters: list[AdapterRef]) -> None:
    old, new = adapters

    async def scenario() -> tuple[Group, Group, float]:
        await rig.engine.load(old)
        sampling = Sampling(16, 512, 1.0, 1.0, 1)
        early = asyncio.create_task(rig.engine.generate(0, PROBLEM, old, sampling))
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        await rig.engine.load(new)
        seconds = time.perf_counter() - began
        in_flight = not early.done()
        late = asyncio.create_task(rig.engine.generate(1, PROBLEM, new, replace(sampling, max_tokens=64)))
        await rig.engine.retire(old)
        groups = await early, await late
        assert in_flight
        return *groups, seconds

    early, late, seconds = rig.run(scenario())
    print(f"an adapter of rank 256 took {seconds:.2f} s to load with requests in flight")
    short = replace(early, samples=early.samples[:4])
    assert disagreement(short, rig.model, old) < AGREE
    assert disagreement(late, rig.model, new) < AGREE
    assert disagreement(late, rig.model, old) > 2 * AGREE
    assert disagreement(rig.generate(None), rig.model, None) < AGREE
    rig.run(rig.engine.retire(new))


def test_a_killed_engine_restarts_beside_the_learner(rig: Rig, adapters: list[AdapterRef]) -> None:
    before = inside(rig.engine, cache_blocks)
    process = inside(rig.engine, lambda _: os.getpid())
    os.kill(process, signal.SIGKILL)
    with pytest.raises(ActorDied):
        rig.generate(None)
    rig.run(rig.engine.revive())
    rig.run(rig.engine.load(adapters[0]))
    assert disagreement(rig.generate(adapters[0]), rig.model, adapters[0]) < AGREE
    assert inside(rig.engine, cache_blocks) == before
    assert memory_used() < rig.plan.machine.gpu_memory


def test_optimizer_in_host_memory_takes_the_same_steps(rig: Rig, build_group: Callable[..., Group]) -> None:
    """DeepSpeed's CPU Adam and AdamW on the GPU give the same adapter; the former needs less GPU memory."""
    rig.run(rig.learner.close())
    found: dict[str, tuple[str, float, dict[str, torch.Tensor]]] = {}
    for where in ("cpu", "none"):
        config = replace(rig.config, learner=replace(rig.config.learner, offload=where))
        learner, ranks = rig.run(rig.start_learner(config))
        stats = rig.update(learner, batch(rig, build_group))
        kind = inside(ranks[0], lambda actor: type(actor.learner._optimizer._adam).__name__)
        weights = load_file(Path(stats.adapter.path) / "adapter_model.safetensors")
        found[where] = kind, stats.metrics["learner/peak_memory"], weights
        rig.run(learner.close())
    (kind, host_peak, host), (_, gpu_peak, gpu) = found["cpu"], found["none"]
    print(f"{kind} on the host: {host_peak / GIB:.2f} GiB of the GPU at the peak, on the GPU {gpu_peak / GIB:.2f}")
    assert kind == "DeepSpeedCPUAdam"
    assert host_peak < gpu_peak
    moved = torch.stack([value.float().norm() for name, value in gpu.items() if "lora_B" in name]).norm()
    error = torch.stack([(host[name].float() - gpu[name].float()).norm() for name in gpu if "lora_B" in name]).norm()
    assert moved > 0
    # A first step follows the gradients' signs, which the flash kernel's rounding flips near zero. Two unrelated steps
    # would be 1.4 apart.
    assert error < 0.3 * moved

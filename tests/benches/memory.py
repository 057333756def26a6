"""Compares peak resident memory of the real engine and learner with the plan.

Every case starts Ray, a rollout actor and a learner of the bundled model. They serve two adapter versions, learn from
a full micro-batch and save.
"""

import json
import os
import random
import sys
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Request, Sampling
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.checkup.measurement import random_group
from microbudget_rl.launch.hardware.machine import GIB, detect
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.session.admission import resolve_model
from tests.benches.learner import status
from tests.benches.results import Result, Row, measured

PROMPT = 64

Figures = dict[str, tuple[float, float]]
"""Measured and planned, by metric."""


CASES = tuple((rank, response) for response in (24, 448) for rank in (8, 64, 256))
"""Pairs of a rank and the tokens per response."""


def run() -> Result:
    rows = (
        Row(f"r={rank}, responses of {response}", metric, *figures)
        for rank, response in CASES
        for metric, figures in measure(rank, response).items()
    )
    return Result(
        tuple(rows),
        {"memory of this machine, GiB": (detect("cpu").host_memory or 0) / GIB},
        ("ours: measured, GiB of resident memory at its peak, and tokens of KV cache; baseline: the plan's number.",),
    )


def measure(rank: int, response: int) -> Figures:
    """Measure a case in a process of its own."""
    return measured(__name__, str(rank), str(response))


def measure_here(rank: int, response: int) -> Figures:
    import ray

    from microbudget_rl.actors.models.files import locate
    from microbudget_rl.actors.rollout.actor import RolloutActor
    from microbudget_rl.actors.runtime.ray_session import OBJECT_STORE_BYTES
    from microbudget_rl.learner.actor import LearnerActor

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    config = _configure(rank, response)
    plan, model = make_plan(config, detect("cpu")), locate(config.model)
    quiet: Any = {"include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", num_cpus=2, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    with TemporaryDirectory() as folder:
        remote: Any = ray.remote(LearnerActor)
        learner = remote.options(num_cpus=1).remote(config, model, plan.placement.learners[0], folder)
        ray.get(learner.open.remote())
        first = ray.get(learner.publish.remote())
        remote = ray.remote(RolloutActor)
        engine = remote.options(num_cpus=1).remote(config, model, plan.placement.rollouts[0])
        ray.get(engine.load.remote(first))
        groups = plan.sequences // config.rollout.samples_per_problem + 1  # that fill the cache
        _generate(ray, engine, config, first, groups)
        ray.get(learner.accumulate.remote(_batch(config, first)))
        second = ray.get(learner.step.remote(0.0)).adapter
        ray.get(engine.load.remote(second))
        _generate(ray, engine, config, second, 1)
        ray.get(learner.accumulate.remote(replace(_batch(config, second), version=1)))
        ray.get(learner.step.remote(0.0))
        ray.get(learner.save.remote(folder))
        actors = {"engine": engine, "learner": learner}
        peaks = {name: ray.get(actor.__ray_call__.remote(_peaks)) for name, actor in actors.items()}
        capacity = ray.get(engine.__ray_call__.remote(_cache_tokens))
    ray.shutdown()
    planned = {name: sum(m.bytes for m in plan.memory if m.what.startswith(name)) for name in peaks}
    return {
        **{f"{name}_gib": (peaks[name] / GIB, planned[name] / GIB) for name in peaks},
        "cache_tokens": (capacity, plan.cache_tokens),
    }


def _configure(rank: int, response: int) -> Config:
    lengths = (f"rollout.max_prompt_tokens={PROMPT}", f"rollout.max_response_tokens={response}")
    memory = ("rollout.kv_cache_gib=1", "learner.tokens_per_microbatch=2048")
    config = load(["conf=quickstart", "device=cpu", f"lora.rank={rank}", *lengths, *memory])
    return resolve_model(config, detect("cpu"))


def _generate(ray: Any, engine: Any, config: Config, adapter: AdapterRef, groups: int) -> None:
    rollout, rng = config.rollout, random.Random(0)
    sampling = Sampling(rollout.samples_per_problem, rollout.max_response_tokens, 1.0, 1.0, 0)
    problems = [random_group(rng, index, PROMPT, (), adapter).problem for index in range(groups)]
    ray.get(
        [engine.generate.remote(Request(index, problem, adapter, sampling)) for index, problem in enumerate(problems)]
    )


def _batch(config: Config, adapter: AdapterRef) -> Batch:
    """Make groups of full length that fill one micro-batch."""
    rng, groups = random.Random(0), list[Group]()
    length, left = config.rollout.max_response_tokens, config.learner.microbatch
    while left > PROMPT + 2 * length:
        count = min((left - PROMPT) // length, config.rollout.samples_per_problem)
        groups.append(random_group(rng, len(groups), PROMPT, [length] * count, adapter))
        left -= PROMPT + count * length
    return Batch(0, tuple(groups))


def _cache_tokens(actor: Any) -> int:
    cache = actor.vllm_config.cache_config
    return int(cache.num_gpu_blocks or 0) * int(cache.block_size)


def _peaks(_: Any) -> int:
    """Return the sum of the peaks of an actor's process and its children, bytes."""
    me = psutil.Process()
    return sum(status("VmHWM", process.pid) for process in (me, *me.children(recursive=True)))


if __name__ == "__main__":
    print(json.dumps(measure_here(*map(int, sys.argv[1:]))))

"""Peak resident memory of the real engine and learner against the plan's numbers, process by process.

Every case starts Ray, a rollout actor and a learner of the embedded model, has them serve two adapter versions, learn
from a full micro-batch and save, and reads the peaks of their processes.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from actors.messages import AdapterRef, Batch, Group, Problem, Reward, Sample, Sampling, Status, Verdict
from actors.rollout.adapter_transfer import stamp
from conf.load import load
from conf.schema import Config
from launch.benches.report import Report, Row
from launch.plan.machine import GIB, detect
from launch.plan.plan import make_plan
from launch.session.resume import resolve_dtype

PROMPT = 64


@dataclass(frozen=True)
class Case:
    """response: the limit in tokens, which all samples reach."""

    rank: int
    response: int

    @property
    def name(self) -> str:
        return f"r={self.rank}, responses of {self.response}"


CASES = tuple(Case(rank, response) for response in (24, 448) for rank in (8, 64, 256))


def run() -> Report:
    rows = []
    for case in CASES:
        for metric, (measured, planned) in measure(case).items():
            rows.append(Row(case.name, metric, measured, planned))
    return Report(
        tuple(rows),
        {"memory of this machine, GiB": (detect("cpu").host_memory or 0) / GIB},
        ("ours: measured, GiB of resident memory at its peak, and tokens of KV cache; baseline: the plan's number.",),
    )


def measure(case: Case) -> dict[str, tuple[float, float]]:
    """(measured, planned) by metric, from a fresh process."""
    command = [sys.executable, "-m", "launch.benches.memory", json.dumps(asdict(case))]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, tuple[float, float]] = json.loads(answer.splitlines()[-1])
    return found


def configure(case: Case) -> Config:
    config = load(
        ["conf=quickstart", "device=cpu", f"lora.rank={case.rank}", f"rollout.max_response_tokens={case.response}"]
    )
    config.rollout.max_prompt_tokens = PROMPT
    config.rollout.kv_cache_gib = 1
    config.learner.tokens_per_microbatch = 2048
    resolve_dtype(config, detect("cpu"))
    return config


def measure_here(case: Case) -> dict[str, tuple[float, float]]:
    """The same in this process."""
    import ray

    from actors.rollout.actor import RolloutActor
    from conf.models import locate
    from launch.plan.host_needs import OBJECT_STORE_BYTES
    from learner.actor import LearnerActor

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    config = configure(case)
    plan = make_plan(config, detect("cpu"))
    model = locate(config.model)
    share, own = plan.placement.rollouts[0], plan.placement.learners[0]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
    )
    with TemporaryDirectory() as folder:
        remote: Any = ray.remote(LearnerActor)
        learner = remote.options(num_cpus=1).remote(config, model, own, folder)
        ray.get(learner.open.remote())
        first = ray.get(learner.publish.remote())
        remote = ray.remote(RolloutActor)
        engine = remote.options(num_cpus=1).remote(config, model, share)
        actors = {"engine": engine, "learner": learner}
        ray.get(engine.load.remote(first, stamp(first.path)))
        groups = plan.sequences // config.rollout.samples_per_problem + 1  # that fill the cache
        ray.get([engine.generate.remote(i, _problem(i), first, _sampling(config)) for i in range(groups)])
        ray.get(learner.accumulate.remote(_batch(config, first)))
        second = ray.get(learner.step.remote(0.0)).adapter
        ray.get(engine.load.remote(second, stamp(second.path)))
        ray.get(engine.generate.remote(9, _problem(9), second, _sampling(config)))
        ray.get(learner.accumulate.remote(replace(_batch(config, second), version=1)))
        ray.get(learner.step.remote(0.0))
        ray.get(learner.save.remote(folder))
        capacity = ray.get(engine.__ray_call__.remote(_cache_tokens))
        found = {name: ray.get(actor.__ray_call__.remote(_peaks)) for name, actor in actors.items()}
    ray.shutdown()
    planned = {name: sum(m.bytes for m in plan.memory if m.what.startswith(name)) for name in found}
    return {
        **{f"{name}_gib": (found[name] / GIB, planned[name] / GIB) for name in found},
        "cache_tokens": (capacity, plan.cache_tokens),
    }


def _problem(index: int) -> Problem:
    rng = random.Random(index)
    return Problem(str(index), "", tuple(rng.randrange(100, 49_000) for _ in range(PROMPT)), "")


def _sampling(config: Config) -> Sampling:
    return Sampling(config.rollout.samples_per_problem, config.rollout.max_response_tokens, 1.0, 1.0, 0)


def _batch(config: Config, adapter: AdapterRef) -> Batch:
    """Groups of full length that fill one micro-batch."""
    rng = random.Random(0)
    length, left = config.rollout.max_response_tokens, config.learner.tokens_per_microbatch
    groups: list[Group] = []
    while left > PROMPT + 2 * length:
        count = min((left - PROMPT) // length, config.rollout.samples_per_problem)
        ids = [tuple(rng.randrange(100, 49_000) for _ in range(length)) for _ in range(count)]
        groups.append(
            Group(
                len(groups),
                _problem(len(groups)),
                adapter,
                tuple(Sample(row, (-8.0,) * length, "", "stop") for row in ids),
                tuple(Reward(float(i % 2), {}, Verdict(0.0, Status.WRONG, None, 0.0)) for i in range(count)),
            )
        )
        left -= PROMPT + count * length
    return Batch(0, tuple(groups))


def _cache_tokens(actor: Any) -> int:
    cache = actor._engine._llm.vllm_config.cache_config
    return int(cache.num_gpu_blocks or 0) * int(cache.block_size)


def _peaks(_: Any) -> int:
    """Bytes: peaks of an actor's process and of all its children, added up."""
    me = psutil.Process()
    return sum(_peak(process.pid) for process in (me, *me.children(recursive=True)))


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(measure_here(Case(**json.loads(sys.argv[1])))))

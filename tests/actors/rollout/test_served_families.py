"""Families whose layers, window or head are not Llama's: a real engine serves them as the learner sees them.

Those with layers of several kinds, and wrappers, also take updates, with a weight sync under running requests.
"""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from microbudget_rl.actors.adapter_check.at_start import find_mistake
from microbudget_rl.actors.adapter_check.prompts import distance, logprobs_of
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Problem, Request, Sampling
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.learner import LoraLearner
from tests.conftest import weighed
from tests.fakes import make_reward
from tests.learner.model.families import BY_NAME, Family, build

pytestmark = pytest.mark.skipif(torch.version.cuda is not None, reason="of vLLM's CPU build; tests/gpu has the other's")

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
SERVED = ("Gemma 3, text", "SmolLM3", "Phi-3, Phi-4", "Phi-4-mini", "Granite 3", "Cohere 2", "Qwen 3")
LEARNING = ("Qwen 3.5, text alone", "LFM2", "Gemma 4", "Granite 4, dense", "Falcon-H1")
VERSIONS = 4
CLOSE = 5e-4
"""Mean |Δ log p| in nats below which engine and learner stay in float32."""

LARGER = {"global_head_dim": 64, "mamba_d_head": 64, "mamba_d_ssm": 256, "vocab_size_per_layer_input": 512}
LARGER |= dict.fromkeys(("conv_dim", "conv_dim_out", "block_dim"), 128)
SETTINGS: dict[str, Any] = {"model.dtype": "float32", "lora.rank": 8, "lora.alpha": 16, "learner.learning_rate": 1e-2}
SETTINGS |= {"rollout.max_prompt_tokens": 16, "rollout.max_response_tokens": 40, "rollout.max_concurrent_samples": 16}
SETTINGS |= {"rollout.samples_per_problem": 4, "rollout.kv_cache_gib": 1, "learner.tokens_per_microbatch": 256}


def larger(family: Family) -> Family:
    """The family in sizes that vLLM's kernels take, with a window that prompts exceed where that is allowed."""
    settings: dict[str, Any] = family.settings | {"vocab_size": 512, "hidden_size": 128, "head_dim": 32}
    settings |= {key: value for key, value in LARGER.items() if key in settings}
    if "sliding_window" in settings:
        settings["sliding_window"] = 64 if family.kind == "cohere2" else 24
    if rope := settings.get("rope_parameters"):
        settings["rope_parameters"] = rope | {"short_factor": [1.5] * 12, "long_factor": [4.0] * 12}
    return replace(family, settings=settings)


def write(name: str, tokenizer: Path, folder: Path) -> Config:
    """Write a random model of a family, with another model's tokenizer, and return a run's settings for it."""
    family = larger(BY_NAME[name])
    build(family).save_pretrained(folder)
    for file in tokenizer.iterdir():
        if "token" in file.name or "chat" in file.name:
            shutil.copy(file, folder)
    return changed(Config(), SETTINGS | {"model.path": str(folder), "lora.target_modules": family.targets})


PROBLEMS = tuple(Problem(f"p{n}", "", tuple(range(300 + n, 310 + 2 * n)), "1") for n in range(4))


def ask(engine: RolloutEngine, adapter: AdapterRef, count: int, seed: int = 0) -> asyncio.Future[list[Group]]:
    sampling = Sampling(count, 40, 1.0, 1.0, seed)
    return asyncio.gather(*(engine.generate(Request(i, each, adapter, sampling)) for i, each in enumerate(PROBLEMS)))


async def compare(learner: LoraLearner, engine: RolloutEngine) -> list[tuple[float, str]]:
    """Return, for each synthetic adapter, how far engine and learner are apart, and the mistake that explains it."""
    found = []
    for adapter in learner.publish_synthetic():
        await engine.load(adapter)
        groups = tuple(await ask(engine, adapter, 1))
        views, seen = learner.explain(groups), logprobs_of(groups)
        found.append((distance(seen, views[FAITHFUL]), find_mistake(seen, views)))
        await engine.retire(adapter)
    return found


def score(group: Group) -> Group:
    """Reward even tokens."""
    shares = [fmean(token % 2 == 0 for token in sample.token_ids) for sample in group.samples]
    return weighed(replace(group, rewards=tuple(map(make_reward, shares))), Config())


def apart(learner: LoraLearner, groups: list[Group]) -> float:
    scores = [score.policy for each in learner.score(tuple(groups)) for score in each]
    samples = [sample.logprobs for group in groups for sample in group.samples]
    return max(fmean(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in zip(scores, samples, strict=True))


async def learn(learner: LoraLearner, engine: RolloutEngine) -> list[float]:
    """Take updates. Return the largest difference of a sample of each version; two versions are served at a time."""
    found, newer = [], learner.publish()
    await engine.load(newer)
    for version in range(VERSIONS):
        adapter = newer
        groups = await ask(engine, adapter, 4, 100 * version)
        found.append(apart(learner, groups))
        learner.accumulate(Batch(version, tuple(map(score, groups))))
        running = ask(engine, adapter, 4, 100 * version)
        await asyncio.sleep(0)  # their requests are under way
        newer = learner.step(learner.config.learner.learning_rate).adapter
        await engine.load(newer)
        found.append(apart(learner, await ask(engine, newer, 1)))
        assert {each.adapter for each in await running} == {adapter}
        await engine.retire(adapter)
    return found


@pytest.mark.parametrize(
    "name", ["Qwen 3.5", *(pytest.param(name, marks=pytest.mark.slow) for name in LEARNING + SERVED)]
)
def test_engine_and_learner_agree(name: str, tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    config = write(name, tiny_model, folder)
    learner = LoraLearner(config, str(folder), tmp_path / "adapters")
    decoder = learner.model.get_base_model().get_decoder()
    # vLLM replaces `__call__` of classes that it takes from transformers, in this process the learner's too.
    decoder.__class__ = type("Decoder", (type(decoder),), {"__call__": torch.nn.Module.__call__})

    async def serve() -> tuple[list[tuple[float, str]], list[float]]:
        engine = RolloutEngine(config, str(folder), Share(cores=CORES))
        try:
            return await compare(learner, engine), [] if name in SERVED else await learn(learner, engine)
        finally:
            await engine.close()

    found, apart = asyncio.run(serve())
    assert [mistake for _, mistake in found] == ["", ""], found
    assert all(off < CLOSE for off in (*(off for off, _ in found), *apart)), (found, apart)

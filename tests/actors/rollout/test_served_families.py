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
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts, distance, logprobs_of
from microbudget_rl.actors.messages import Batch, Group, Problem, Reward, Sampling, Status, Verdict
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.learner import LoraLearner
from tests.learner.model.families import FAMILIES, Family, build

pytestmark = pytest.mark.skipif(torch.version.cuda is not None, reason="of vLLM's CPU build; tests/gpu has the other's")

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
SERVED = ("Gemma 3, text", "SmolLM3", "Phi-3, Phi-4", "Phi-4-mini", "Granite 3", "Cohere 2", "Qwen 3")
LEARNING = ("Qwen 3.5, text alone", "LFM2", "Gemma 4", "Granite 4, dense", "Falcon-H1")
QUICK = "Qwen 3.5"
VERSIONS = 4
CLOSE = 5e-4
"""Mean |Δ log p| in nats below which engine and learner stay in float32."""


LARGER = {"global_head_dim": 64, "mamba_d_head": 64, "mamba_d_ssm": 256, "vocab_size_per_layer_input": 512}
LARGER |= dict.fromkeys(("conv_dim", "conv_dim_out", "block_dim"), 128)


def larger(family: Family) -> Family:
    """The family in sizes that vLLM's kernels take, with a window that prompts exceed where that is allowed."""
    settings: dict[str, Any] = family.settings | {"vocab_size": 512, "hidden_size": 128, "head_dim": 32}
    settings |= {key: value for key, value in LARGER.items() if key in settings}
    if "sliding_window" in settings:
        settings["sliding_window"] = 64 if family.kind == "cohere2" else 24
    if rope := settings.get("rope_parameters"):
        settings["rope_parameters"] = rope | {"short_factor": [1.5] * 12, "long_factor": [4.0] * 12}
    return replace(family, settings=settings)


def write(name: str, tokenizer: Path, folder: Path) -> Family:
    """Write a random model of a family, with another model's tokenizer, and return the family."""
    family = larger(next(family for family in FAMILIES if family.name == name))
    build(family).save_pretrained(folder)
    for file in tokenizer.iterdir():
        if "token" in file.name or "chat" in file.name:
            shutil.copy(file, folder)
    return family


def config_for(family: Family, folder: Path) -> Config:
    return changed(
        Config(),
        {
            "model.path": str(folder),
            "model.dtype": "float32",
            "lora.rank": 8,
            "lora.alpha": 16,
            "lora.target_modules": family.targets,
            "rollout.max_prompt_tokens": 16,
            "rollout.max_response_tokens": 40,
            "rollout.max_concurrent_samples": 16,
            "rollout.samples_per_problem": 4,
            "rollout.kv_cache_gib": 1,
            "adapter_check.problems": 4,
            "adapter_check.tokens": 40,
            "learner.tokens_per_microbatch": 256,
            "learner.learning_rate": 1e-2,
        },
    )


class OneEngine(RolloutEngine):
    """An engine as `CheckPrompts` asks it."""

    async def generate_on_each(self, *request: Any) -> tuple[Group, ...]:
        return (await self.generate(*request),)


PROBLEMS = tuple(Problem(f"p{n}", "", tuple(range(300 + n, 310 + 2 * n)), "1") for n in range(4))


async def compare(config: Config, learner: LoraLearner, engine: Any) -> list[tuple[float, str]]:
    """Return, for each synthetic adapter, how far engine and learner are apart, and the mistake that explains it."""
    found = []
    for adapter in learner.publish_synthetic():
        await engine.load(adapter)
        (answers,) = await CheckPrompts(config, PROBLEMS).ask(engine, adapter)
        views = learner.explain(answers)
        seen = logprobs_of(answers)
        found.append((distance(seen, views[FAITHFUL]), find_mistake(seen, views)))
        await engine.retire(adapter)
    return found


def score(group: Group) -> Group:
    """Reward even tokens."""
    shares = [sum(token % 2 == 0 for token in sample.token_ids) / len(sample.token_ids) for sample in group.samples]
    verdict = Verdict(0.0, Status.WRONG, None, 0.0)
    return replace(group, rewards=tuple(Reward(share, {"accuracy": 0.0}, verdict) for share in shares))


def apart(learner: LoraLearner, groups: list[Group]) -> float:
    scores = [score.policy for each in learner.score(tuple(groups)) for score in each]
    samples = [sample.logprobs for group in groups for sample in group.samples]
    return max(fmean(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in zip(scores, samples, strict=True))


async def learn(learner: LoraLearner, engine: Any) -> list[float]:
    """Take updates. Return the largest difference of a sample of each version; two versions are served at a time."""
    found, newer = [], learner.publish()
    await engine.load(newer)
    for version in range(VERSIONS):
        adapter, sampling = newer, Sampling(4, 40, 1.0, 1.0, 100 * version)
        groups = await asyncio.gather(*(engine.generate(i, each, adapter, sampling) for i, each in enumerate(PROBLEMS)))
        found.append(apart(learner, groups))
        learner.accumulate(Batch(version, tuple(map(score, groups))))
        running = [asyncio.create_task(engine.generate(9, each, adapter, sampling)) for each in PROBLEMS[:2]]
        await asyncio.sleep(0)  # their requests are under way
        newer = learner.step(version / VERSIONS).adapter
        await engine.load(newer)
        late = await engine.generate(9, PROBLEMS[2], newer, sampling)
        found.append(apart(learner, [late]))
        assert [each.adapter for each in await asyncio.gather(*running)] == [adapter, adapter]
        await engine.retire(adapter)
    return found


@pytest.mark.parametrize("name", [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LEARNING + SERVED)])
def test_engine_and_learner_agree(name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    config = config_for(write(name, tiny_model, folder), folder)
    learner = LoraLearner(config, str(folder), tmp_path / "adapters")

    async def serve() -> tuple[list[tuple[float, str]], list[float]]:
        engine = OneEngine(config, str(folder), Share(cores=CORES))
        try:
            return await compare(config, learner, engine), [] if name in SERVED else await learn(learner, engine)
        finally:
            await engine.close()

    found, apart = asyncio.run(serve())
    assert [mistake for _, mistake in found] == ["", ""], found
    assert all(off < CLOSE for off in (*(off for off, _ in found), *apart)), (found, apart)

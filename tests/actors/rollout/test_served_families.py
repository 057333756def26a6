"""Families whose layers, window or head are not Llama's: a real engine serves them as the learner sees them."""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from microbudget_rl.actors.adapter_check.at_start import find_mistake
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts, distance, logprobs_of
from microbudget_rl.actors.messages import Group, Problem
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.learner import LoraLearner
from tests.learner.model.families import FAMILIES, Family, build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is not None, reason="of vLLM's CPU build; tests/gpu has the other's"),
]

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
SERVED = ("Gemma 3, text", "SmolLM3", "Phi-3, Phi-4", "Phi-4-mini", "Granite 3", "Cohere 2", "Qwen 3")
CLOSE = 5e-4
"""Mean |Δ log p| in nats below which engine and learner stay in float32."""


def larger(family: Family) -> Family:
    """The family in sizes that vLLM's kernels take, with a window that prompts exceed where that is allowed."""
    settings: dict[str, Any] = family.settings | {"vocab_size": 512, "hidden_size": 128, "head_dim": 32}
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
            "lora.target_modules": list(family.targets),
            "rollout.max_prompt_tokens": 16,
            "rollout.max_response_tokens": 40,
            "rollout.max_concurrent_samples": 1,
            "rollout.kv_cache_gib": 1,
            "adapter_check.problems": 4,
            "adapter_check.tokens": 40,
            "learner.tokens_per_microbatch": 256,
        },
    )


class OneEngine(RolloutEngine):
    """An engine as `CheckPrompts` asks it."""

    async def generate_on_each(self, *request: Any) -> tuple[Group, ...]:
        return (await self.generate(*request),)


async def compare(config: Config, learner: LoraLearner) -> list[tuple[float, str]]:
    """Return, for each synthetic adapter, how far engine and learner are apart, and the mistake that explains it."""
    engine: Any = OneEngine(config, config.model.path, Share(cores=CORES))
    problems = tuple(Problem(f"p{n}", "", tuple(range(300 + n, 316 + n)), "1") for n in range(4))
    found = []
    for adapter in learner.publish_synthetic():
        await engine.load(adapter)
        (answers,) = await CheckPrompts(config, problems).ask(engine, adapter)
        views = learner.explain(answers)
        seen = logprobs_of(answers)
        found.append((distance(seen, views[FAITHFUL]), find_mistake(seen, views)))
        await engine.retire(adapter)
    await engine.close()
    return found


@pytest.mark.parametrize("name", SERVED)
def test_engine_and_learner_agree(name: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    config = config_for(write(name, tiny_model, folder), folder)
    found = asyncio.run(compare(config, LoraLearner(config, str(folder), tmp_path / "adapters")))
    assert [mistake for _, mistake in found] == ["", ""], found
    assert all(off < CLOSE for off, _ in found), found

"""Against transformers' models without weights, and against what autograd saved in each kind of layer."""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from microbudget_rl.actors.models import sizes
from microbudget_rl.actors.models.files import shape_from_config, shape_stated
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import ShapeConfig
from tests.learner.model.families import BY_NAME
from tests.random_model import configuration

pytestmark = pytest.mark.long

S, F, L = "sliding_attention", "full_attention", "linear_attention"
LFM2 = {"hidden_size": 1024, "intermediate_size": 6656, "num_attention_heads": 16, "num_hidden_layers": 4}
SHARED = {"layer_types": [S, F] * 3, "num_hidden_layers": 6, "num_kv_shared_layers": 2}
NAMES = ("Granite 4, dense", "Granite 4, attention only", "Falcon-H1", "Qwen 3")
CONFIGS = {name: BY_NAME[name].configuration for name in NAMES}
CONFIGS["LFM2"] = AutoConfig.for_model("lfm2", **LFM2, layer_types=["conv", F] * 2)
CONFIGS["Gemma 4"] = AutoConfig.for_model("gemma4_text", **SHARED)
QWEN, GEMMA = "qwen3.5_0.8b", "gemma4_e2b"


@cache
def built(name: str) -> tuple[Any, ShapeConfig]:
    """Return the configuration of a recipe or a family, and the shape by its config.json."""
    config = CONFIGS.get(name) or configuration(load([f"conf={name}"]).model)
    return config, shape_stated(json.loads(config.to_json_string()))


def test_lfm2_is_read_under_its_makers_names(tmp_path: Path):
    config, shape = built("LFM2")
    stated = config.to_dict() | {"block_ff_dim": 6656, "full_attn_idxs": [1, 3], "tie_embedding": True}
    for name in ("intermediate_size", "layer_types", "tie_word_embeddings"):
        del stated[name]
    (tmp_path / "config.json").write_text(json.dumps(stated))
    assert shape_from_config(tmp_path) == shape


@pytest.mark.parametrize("name", [QWEN, GEMMA, *CONFIGS])
def test_weights_and_adapters_are_those_of_transformers_model(name: str):
    config, shape = built(name)
    assert name in CONFIGS or shape == load([f"conf={name}"]).model.shape
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sizes.parameters(shape) == sum(weight.numel() for weight in model.parameters())
    ends: Counter[str] = Counter()
    for place, module in model.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            ends[place.rpartition(".")[2]] += module.in_features + module.out_features
    assert {each: sizes.lora_parameters(shape, 1, [each]) for each in ends} == ends


def test_states_count_per_sequence_windows_bound_keys_and_values_and_shared_layers_store_none():
    qwen, gemma = built(QWEN)[1], built(GEMMA)[1]
    state = 18 * (16 * 128 * 128 * 4 + 3 * 3 * 16 * 128 * 2)
    assert sizes.cache_bytes(qwen, "bfloat16", 100) == 2 * state + 100 * 6 * 2 * 2 * 256 * 2
    assert sizes.cache_bytes(gemma, "bfloat16", 800) == 2 * 2 * (12 * 512 * 256 + 3 * 800 * 512)
    assert sizes.parameters(gemma) - sizes.matmul_parameters(gemma) == 262144 * 35 * 256  # looked up


SAVED = {(QWEN, L, 44): 226_153 + 180_224, ("LFM2", "conv", 44): 61_544 + 12_288, ("LFM2", F, 44): 61_720}
SAVED |= {(GEMMA, S, 44): 113_072, (GEMMA, F, 44): 131_512, (QWEN, L, 17): 113_308 + 68_080}
"""Bytes per token, of what computes up to twice the tokens twice. The number is of a delta rule's values: 17 are kept
with what flash-linear-attention 0.6 saves in place of torch's rule."""


@pytest.mark.parametrize(("name", "kind", "values"), SAVED)
def test_activations_are_those_that_autograd_saves(name: str, kind: str, values: int):
    shape = ShapeConfig(**{**vars(built(name)[1]), "layers": {kind: 1}, "num_hidden_layers": 1})
    kept = sizes.ON_CPU._replace(values=values)
    assert sizes.activation_bytes(shape, 8, 2, kept) == pytest.approx(SAVED[name, kind, values], rel=0.03)


def test_samples_share_a_prompt_of_a_block_whose_size_states_decide():
    cases = (QWEN, "cuda", 543), (QWEN, "cuda", 544), (QWEN, "cpu", 544), ("LFM2", "cuda", 16)
    shared = [sizes.shares_prompt(built(name)[1], device, tokens) for name, device, tokens in cases]
    assert shared == [False, True, False, True]


@pytest.mark.parametrize("wrong", ["layers={rwkv: 24}", "sizes={}", "num_hidden_layers=25"])
def test_kinds_and_sizes_that_do_not_fit_together_are_refused(wrong: str):
    with pytest.raises(BadInput, match=r"model\.shape"):
        sizes.parameters(load([f"conf={QWEN}", f"model.shape.{wrong}"]).model.shape)

"""Refusals by config.json alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.models.families import check_family, read_config
from microbudget_rl.actors.models.files import shape_from_config, shape_of
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import ModelConfig
from tests.actors.models.test_files import STATED


def folder(path: Path, **settings: Any) -> Path:
    (path / "config.json").write_text(json.dumps(STATED | settings))
    return path


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"layer_types": ["full_attention", "mamba"]}, "mamba"),
        ({"n_routed_experts": 64}, "n_routed_experts"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type is dynamic"),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope_type is dynamic"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"text_config": {}}, "text_config"),
        ({"layer_types": ["linear_attention"], "model_type": "olmo_hybrid"}, "linear_attention"),
        ({"attention_k_eq_v": True, "model_type": "gemma4_text"}, "attention_k_eq_v"),
        ({"model_type": "qwen3_5", "text_config": STATED | {"num_experts": 64}}, "num_experts"),
        ({"model_type": "qwen3_5", "text_config": STATED, "quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vision_config": {"depth": 1}}, "vision_config"),
    ],
)
def test_run_and_plan_refuse_a_family(settings: dict[str, Any], named: str, tmp_path: Path):
    path = str(folder(tmp_path, **settings))
    for refuse in (lambda: check_family(path), lambda: shape_of(ModelConfig(path=path))):
        with pytest.raises(BadInput, match=rf"config.json: .*{named}.*; (choose|set)"):
            refuse()


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_logit_softcapping": None, "final_logit_softcapping": 30.0},
        {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512},
        {"layer_types": ["linear_attention"], "model_type": "qwen3_5_text"},
        {"model_type": "gemma4", "text_config": STATED, "vision_config": {"hidden_size": 8}},
        {"num_experts": 0, "num_local_experts": 1, "n_routed_experts": None},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    ],
)
def test_families_the_learner_reproduces_are_accepted(settings: dict[str, Any], tmp_path: Path):
    check_family(folder(tmp_path, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 64}},
        {"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 64},
        {"model_type": "cohere2", "sliding_window": 64},
    ],
)
def test_context_ends_where_engine_and_learner_differ(settings: dict[str, Any], tmp_path: Path):
    assert shape_from_config(folder(tmp_path, **settings)).max_position_embeddings == 64


def test_a_damaged_part_for_text_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"text_config.hidden_size='wide'"):
        read_config(folder(tmp_path, text_config={"hidden_size": "wide"}))

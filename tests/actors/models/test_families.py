"""What config.json says against a model, by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.models.families import check_family
from actors.models.files import shape_from_config, shape_of
from conf.errors import BadInput
from conf.schema import ModelConfig
from tests.actors.models.test_files import STATED


def folder(path: Path, **settings: Any) -> Path:
    (path / "config.json").write_text(json.dumps(STATED | settings))
    return path


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ({"layer_types": ["full_attention", "mamba"]}, "layer_types has mamba"),
        ({"mamba_d_state": 16}, "mamba_d_state is 16"),
        ({"conv_L_cache": 3}, "conv_L_cache is 3"),
        ({"n_routed_experts": 64}, "n_routed_experts is 64"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type is dynamic"),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope_type is dynamic"),
        ({"resid_pdrop": 0.1}, "resid_pdrop is 0.1"),
        ({"residual_dropout": 0.1}, "residual_dropout is 0.1"),
        ({"quantization_config": {"bits": 4}}, "there is a quantization_config"),
        ({"text_config": {}}, "there is a text_config"),
    ],
)
def test_one_sentence_names_thing_value_and_remedy(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = str(folder(tmp_path, **settings))
    with pytest.raises(BadInput, match=rf"config.json: {said}, .*; (choose|set)") as caught:
        check_family(path)
    with pytest.raises(BadInput) as planned:
        shape_of(ModelConfig(path=path))
    assert str(planned.value) == str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_logit_softcapping": None, "final_logit_softcapping": 30.0},
        {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512},
        {"layer_types": ["attention", "attention"], "mamba_d_state": 16},
        {"num_experts": 0, "num_local_experts": 1, "n_routed_experts": None},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": None, "attention_dropout": 0.1, "hidden_dropout": 0.0, "classifier_dropout": 0.2},
    ],
)
def test_what_the_learner_has_is_taken(settings: dict[str, Any], tmp_path: Path) -> None:
    check_family(folder(tmp_path, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 64}},
        {"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 64},
        {"model_type": "cohere2", "sliding_window": 64},
    ],
)
def test_context_ends_where_engine_and_learner_would_differ(settings: dict[str, Any], tmp_path: Path) -> None:
    assert shape_from_config(folder(tmp_path, **settings)).max_position_embeddings == 64

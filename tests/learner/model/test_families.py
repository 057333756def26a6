"""Which families of models can be trained: real configurations of transformers, tiny and random."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from actors.models.files import TIED_BY_DEFAULT
from conf.errors import BadInput
from conf.schema import Config
from conf.schema.model import PROJECTIONS
from conf.settings import changed
from learner.model.architecture import check_architecture, check_modules
from tests.conftest import ROOT
from tests.learner.model.families import FAMILIES, SHAPE, judge, rows

BY_NAME = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize(
    "name", ["Qwen 3", "SmolLM3", "Gemma 3, text", "Phi-3, Phi-4", "Phi-4-mini", "Granite 3", "Cohere 2"]
)
def test_family_is_taken(name: str, tmp_path: Path) -> None:
    assert judge(BY_NAME[name], tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Gemma 2", "attn_logit_softcapping is 50.0, .*; choose a family without"),
        ("Qwen 3 MoE", "num_local_experts is 4, .*; choose a dense model"),
        ("LFM2", "layer_types has conv, .*; choose another model"),
        ("any, with dynamic RoPE", "rope_type is dynamic, .*; choose another model, or set rope_type to default"),
        ("any, with residual dropout", "resid_pdrop is 0.1, .*; set it to 0"),
        (
            "GLM-4",
            r"layer 0 has no gate_proj, .*; set lora.target_modules=\[q_proj,k_proj,v_proj,o_proj,down_proj\], if",
        ),
        ("StableLM", "does not take packed samples .*; choose a model of"),
    ],
)
def test_family_is_refused(name: str, said: str, tmp_path: Path) -> None:
    assert re.search(said, judge(BY_NAME[name], tmp_path))


def test_a_head_is_tied_where_transformers_ties_it() -> None:
    tied = {family.kind for family in FAMILIES if AutoConfig.for_model(family.kind).tie_word_embeddings}
    assert tied == TIED_BY_DEFAULT


@pytest.mark.slow
def test_the_documents_have_the_table_that_the_checks_decide() -> None:
    assert "\n".join(rows()) in (ROOT / "docs" / "reference" / "model-families.md").read_text()


def llama(**settings: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**(SHAPE | settings)))


LAYER = "model.layers.1"


@pytest.mark.parametrize(
    ("place", "name", "changed", "said"),
    [
        (LAYER, "mixer", torch.nn.Conv1d(4, 4, 2), "layer 1 has a convolution, mixer"),
        (f"{LAYER}.mlp", "weights", torch.nn.Parameter(torch.zeros(4, 2, 2)), r"layer 1 has experts, mlp\.weights"),
        (LAYER, "residual", torch.nn.Dropout(0.1), "layer 1 has a dropout of 0.1, residual"),
        (LAYER, "self_attn", torch.nn.Identity(), "layer 1 has no attention"),
        (
            f"{LAYER}.mlp",
            "down_proj",
            torch.nn.Identity(),
            r"layer 1 has no down_proj, .*=\[q_proj,.*,up_proj\]$",
        ),
        (LAYER, "cross", torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 2)}), "layer 1 has 2 q_proj"),
        (LAYER, "gate", torch.nn.Linear(2, 2), "layer 1 has gate besides lora.target_modules"),
        ("lm_head", "bias", torch.nn.Parameter(torch.zeros(256)), "its output head is .*; choose"),
    ],
)
def test_one_strange_module_is_enough(place: str, name: str, changed: object, said: str) -> None:
    base = llama()
    check_modules(base, PROJECTIONS)
    setattr(base.get_submodule(place), name, changed)
    with pytest.raises(BadInput, match=said):
        check_modules(base, PROJECTIONS)
    if name == "gate":  # which a part that was asked for may leave out
        check_modules(base, ("q_proj", "v_proj"))


def test_what_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    config = changed(Config(), {"model.path": str(tmp_path)})
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(BadInput, match=r"transformers .* cannot build it .*abacus.*; choose a model that it knows"):
        check_architecture(config, str(tmp_path))

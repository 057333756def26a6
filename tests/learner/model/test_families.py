"""Families of models that can be trained: real configurations of transformers, tiny and random."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from microbudget_rl.actors.models.files import TIED_BY_DEFAULT
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.model import PROJECTIONS
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.model.architecture import check_architecture, check_modules
from tests.conftest import ROOT
from tests.learner.model.families import BY_NAME, FAMILIES, SHAPE, refusal, rows

pytestmark = pytest.mark.long

TRAINED = ("Qwen 3", "SmolLM3", "Gemma 3, text", "Phi-3, Phi-4", "Phi-4-mini", "Granite 3", "Cohere 2", "Gemma 4")


@pytest.mark.parametrize("name", [*TRAINED, "Qwen 3.5", "LFM2"])
def test_family_is_trained(name: str, tmp_path: Path):
    assert refusal(BY_NAME[name], tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "targets", "said"),
    [
        ("Seed-OSS", (), "dropout|lacks something"),
        ("GLM-4", (), r"no gate_proj, .*lora.target_modules=\[q_proj,k_proj,v_proj,o_proj,down_proj\], if"),
        ("GLM-4", (*PROJECTIONS[:4], "gate_up_proj", "down_proj"), "gate_up_proj but no qkv_proj"),
        ("StableLM", (), "does not take packed samples"),
        ("Nemotron-H", (), "n_routed_experts"),
        ("Qwen 3.5", PROJECTIONS, r"in_proj_a, .*besides lora.target_modules.*=\[all-linear\]"),
        ("LFM2", ("q_proj", "o_proj"), r"no layer has o_proj; set lora.target_modules=\[all-linear\]"),
        ("Qwen 3.5", ("q_proj", "in_proj_z"), "only together with in_proj_qkv"),
        ("Qwen 3.5", ("q_proj", "in_proj_qkv"), "^$"),
        ("Falcon-H1", ("q_proj", "out_proj"), r"out_proj, .*=\[all-linear\]"),
    ],
)
def test_a_family_or_a_part_is_refused(name: str, targets: tuple[str, ...], said: str, tmp_path: Path):
    assert re.search(said, refusal(replace(BY_NAME[name], asked=targets), tmp_path))


def test_weights_of_uneven_families_are_not_shared(tmp_path: Path):
    BY_NAME["LFM2"].configuration.save_pretrained(tmp_path)
    config = changed(Config(), {"model.shared_weights": "on", "lora.target_modules": BY_NAME["LFM2"].targets})
    with pytest.raises(BadInput, match=r"model.shared_weights=on"):
        check_architecture(config, str(tmp_path))


def test_heads_are_tied_as_in_transformers():
    kinds = {family.text or family.kind for family in FAMILIES}
    tied = {kind for kind in kinds if AutoConfig.for_model(kind).tie_word_embeddings}
    assert tied == TIED_BY_DEFAULT


@pytest.mark.slow
def test_the_documented_table_is_the_checks_result():
    assert "\n".join(rows()) in (ROOT / "docs" / "reference" / "model-families.md").read_text()


LAYER = "model.layers.1"


@pytest.mark.parametrize(
    ("place", "name", "changed", "said"),
    [
        (LAYER, "mixer", torch.nn.Conv1d(4, 4, 2), "layer 1 has a convolution, mixer"),
        (f"{LAYER}.mlp", "weights", torch.nn.Parameter(torch.zeros(4, 2, 2)), r"layer 1 has experts, mlp\.weights"),
        (LAYER, "residual", torch.nn.Dropout(0.1), "layer 1 has a dropout of 0.1, residual"),
        (f"{LAYER}.mlp", "down_proj", torch.nn.Identity(), r"layer 1 has no down_proj, .*=\[q_proj,.*,up_proj\]$"),
        (LAYER, "cross", torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 2)}), "layer 1 has 2 q_proj"),
        (LAYER, "gate", torch.nn.Linear(2, 2), "layer 1 has gate besides lora.target_modules"),
    ],
)
def test_one_foreign_module_is_enough(place: str, name: str, changed: object, said: str):
    base = LlamaForCausalLM(LlamaConfig(**SHAPE))
    check_modules(base, PROJECTIONS)
    setattr(base.get_submodule(place), name, changed)
    with pytest.raises(BadInput, match=said):
        check_modules(base, PROJECTIONS)
    if name == "gate":  # fine if the user asked for a part
        check_modules(base, ("q_proj", "v_proj"))


def test_an_unknown_model_type_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(BadInput, match=r"cannot build it .*abacus.*; choose"):
        check_architecture(Config(), str(tmp_path))

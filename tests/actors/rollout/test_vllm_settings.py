import os
from pathlib import Path

import pytest
import torch
from vllm import EngineArgs

from microbudget_rl.actors.rollout.vllm_settings import engine_settings, gpu_settings, head_settings
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.actors.rollout.test_served_families import larger
from tests.learner.model.families import BY_NAME, build

GPU = Share(gpus=0.45, memory=0.45, threads=2)


@pytest.mark.parametrize("name", ["Qwen 3", "Gemma 2", "Gemma 3, text", "Granite 3", "Cohere 2"])
def test_vllm_understands_the_dtype_of_logits_in_families_that_scale_or_cap_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", os.environ.copy())  # vLLM sets LD_PRELOAD for its children
    build(larger(BY_NAME[name])).save_pretrained(tmp_path)
    common = {"dtype": "bfloat16", "skip_tokenizer_init": True, **gpu_settings(GPU, 5000)}
    for given, dtype in (head_settings(Config(), GPU), torch.float32), ({}, torch.bfloat16):
        made = EngineArgs(str(tmp_path), **common, **given).create_engine_config()
        assert made.model_config.head_dtype == dtype
        assert made.kernel_config.enable_flashinfer_autotune is False
        assert made.additional_config["gdn_prefill_backend"] == "triton"


def test_only_engines_on_gpus_have_logits_in_float32(tmp_path: Path):
    """A deterministic run needs products that vLLM has made independent of the batch."""
    (tmp_path / "config.json").write_text("{}")
    deterministic = changed(Config(), {"run.deterministic": True})
    cases = (Config(), GPU, True), (Config(), Share(cores=(0,)), False), (deterministic, GPU, False)
    for config, share, expected in cases:
        assert ("hf_overrides" in engine_settings(config, str(tmp_path), share, None)) is expected


@pytest.mark.parametrize(
    ("name", "alone", "cached"),
    [("Qwen 3", False, True), ("Qwen 3.5", True, False), ("Gemma 4", True, True), ("LFM2", False, False)],
)
def test_wrappers_are_served_for_text_and_recurrent_prompts_are_not_shared_on_a_cpu(
    name: str, alone: bool, cached: bool, tmp_path: Path
):
    BY_NAME[name].configuration.save_pretrained(tmp_path)
    for share in (GPU, Share(cores=(0,))):
        settings = engine_settings(Config(), str(tmp_path), share, None)
        assert settings.get("language_model_only", False) is alone
        assert settings.get("enable_prefix_caching", True) is (cached or share is GPU)

"""Tiny random models of many families and the checks' result for each: the table in docs/reference/model-families.md.

`python -m tests.learner.model.families` prints it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from microbudget_rl.actors.models.files import linear_modules, shape_of
from microbudget_rl.actors.models.text_part import whole_model
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.model import ALL_LINEAR, PROJECTIONS
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.model.architecture import check_architecture
from microbudget_rl.learner.model.policy import Policy

SHAPE: dict[str, Any] = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128}
SHAPE |= {"initializer_range": 0.1, "tie_word_embeddings": False}
SHAPE |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TIED = {"tie_word_embeddings": True}
MIXED = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
GRANITE = {"embedding_multiplier": 6.0, "logits_scaling": 4.0, "residual_multiplier": 0.3}
GRANITE |= {"attention_multiplier": 0.06, "attention_dropout": 0.1}
GEMMA = {"query_pre_attn_scalar": 16}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.5] * 6, "long_factor": [4.0] * 6}
LONG |= {"original_max_position_embeddings": 64, "partial_rotary_factor": 0.75}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
DELTA |= {"layer_types": ["linear_attention", "full_attention"]}
CONVOLVED = {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
CONVOLVED |= dict.fromkeys(("conv_dim", "conv_dim_out", "block_dim"), 64)  # which vLLM reads
GEMMA_4 = {"num_hidden_layers": 4, "sliding_window": 8, "layer_types": 2 * ["sliding_attention", "full_attention"]}
GEMMA_4 |= {"global_head_dim": 32, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 256}
GEMMA_4 |= {"num_kv_shared_layers": 2, "use_double_wide_mlp": True, "final_logit_softcapping": 30.0, **TIED}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_ssm": 128}
MAMBA |= {"mamba_chunk_size": 32}
HYBRID = MAMBA | {"num_local_experts": 0, "shared_intermediate_size": 96, "layer_types": ["mamba", "attention"]}
ATTENTION = {"layer_types": 2 * ["attention"]}
VISION = {"hidden_size": 32, "intermediate_size": 32, "depth": 1, "num_heads": 2, "num_position_embeddings": 16}
VISION |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "qk_nope_head_dim": 8}
LATENT |= {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LLAMA_4 = {"intermediate_size_mlp": 96, "interleave_moe_layer_step": 1}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "mamba_d_state": 8}
UNGATED = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """A family of models. kind: `model_type` of transformers. models: some on the hub. settings: changes of SHAPE.
    asked: `lora.target_modules` if it has to be named. text: `model_type` of the part for text in a wrapper.
    """

    name: str
    kind: str
    models: str
    settings: dict[str, Any] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    text: str = ""

    @property
    def targets(self) -> list[str]:
        return list(self.asked) or linear_modules(self.configuration.get_text_config().to_dict())

    @property
    def configuration(self) -> Any:
        own = SHAPE | self.settings
        if not self.text:
            return AutoConfig.for_model(self.kind, **own)
        return AutoConfig.for_model(self.kind, text_config=own, vision_config=VISION, **TIED)


FAMILIES = (
    Family("Llama 2, 3", "llama", "meta-llama/Llama-3.2-1B-Instruct, HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    Family("Qwen 2, 2.5", "qwen2", "Qwen/Qwen2.5-1.5B-Instruct, agentica-org/DeepScaleR-1.5B-Preview"),
    Family("Qwen 3", "qwen3", "Qwen/Qwen3-0.6B, Qwen/Qwen3-1.7B"),
    Family("SmolLM3", "smollm3", "HuggingFaceTB/SmolLM3-3B", {"no_rope_layer_interval": 2}),
    Family("Gemma 1", "gemma", "google/gemma-2b-it"),
    Family("Gemma 2", "gemma2", "google/gemma-2-2b-it", MIXED | GEMMA),
    Family("VaultGemma", "vaultgemma", "google/vaultgemma-1b", MIXED | GEMMA),
    Family("Gemma 3, text", "gemma3_text", "google/gemma-3-1b-it, google/gemma-3-270m-it", MIXED | GEMMA),
    Family("Mistral", "mistral", "mistralai/Mistral-7B-Instruct-v0.3", {"sliding_window": 8}),
    Family("Ministral", "ministral", "mistralai/Ministral-8B-Instruct-2410", MIXED),
    Family("OLMo", "olmo", "allenai/OLMo-1B-hf", {"clip_qkv": 1.0}),
    Family("OLMo 2", "olmo2", "allenai/OLMo-2-0425-1B-Instruct"),
    Family("OLMo 3", "olmo3", "allenai/Olmo-3-7B-Instruct", MIXED),
    Family("Phi-3, Phi-4", "phi3", "microsoft/Phi-3-mini-4k-instruct, microsoft/phi-4"),
    Family("Phi-4-mini", "phi3", "microsoft/Phi-4-mini-instruct", {"rope_parameters": LONG}),
    Family("Granite 3", "granite", "ibm-granite/granite-3.3-2b-instruct", GRANITE),
    Family("Cohere", "cohere", "CohereLabs/c4ai-command-r-v01", TIED | {"logit_scale": 0.5}),
    Family("Cohere 2", "cohere2", "CohereLabs/c4ai-command-r7b-12-2024", TIED | MIXED | {"logit_scale": 0.5}),
    Family("EXAONE 4", "exaone4", "LGAI-EXAONE/EXAONE-4.0-1.2B", MIXED),
    Family("ERNIE 4.5, dense", "ernie4_5", "baidu/ERNIE-4.5-0.3B-PT"),
    Family("Hunyuan, dense", "hunyuan_v1_dense", "tencent/Hunyuan-1.8B-Instruct"),
    Family("Seed-OSS", "seed_oss", "ByteDance-Seed/Seed-OSS-36B-Instruct"),
    Family("Apertus", "apertus", "swiss-ai/Apertus-8B-Instruct-2509", {}, UNGATED),
    Family("Arcee", "arcee", "arcee-ai/AFM-4.5B", {}, UNGATED),
    Family("Nemotron", "nemotron", "nvidia/Nemotron-Mini-4B-Instruct", {}, UNGATED),
    Family("GLM-4", "glm4", "zai-org/GLM-4-9B-0414"),
    Family("Starcoder 2", "starcoder2", "bigcode/starcoder2-3b", {"residual_dropout": 0.0, "embedding_dropout": 0.0}),
    Family("Phi-1, Phi-2", "phi", "microsoft/phi-2"),
    Family("StableLM", "stablelm", "stabilityai/stablelm-2-1_6b"),
    Family("GPT-NeoX", "gpt_neox", "EleutherAI/pythia-1b"),
    Family("MiniCPM 3", "minicpm3", "openbmb/MiniCPM3-4B"),
    Family("any, with dynamic RoPE", "llama", "", {"rope_parameters": DYNAMIC}),
    Family("any, with residual dropout", "phi3", "", {"resid_pdrop": 0.1}),
    Family("Mixtral", "mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1", EXPERTS),
    Family("Qwen MoE", "qwen2_moe", "Qwen/Qwen1.5-MoE-A2.7B-Chat", EXPERTS | {"shared_expert_intermediate_size": 32}),
    Family("Qwen 3 MoE", "qwen3_moe", "Qwen/Qwen3-30B-A3B", EXPERTS),
    Family("OLMoE", "olmoe", "allenai/OLMoE-1B-7B-0924-Instruct", EXPERTS),
    Family("DeepSeek V3", "deepseek_v3", "deepseek-ai/DeepSeek-V3", EXPERTS | LATENT),
    Family("gpt-oss", "gpt_oss", "openai/gpt-oss-20b", EXPERTS | MIXED),
    Family("Granite MoE", "granitemoe", "ibm-granite/granite-3.1-1b-a400m-instruct", EXPERTS),
    Family("Llama 4, text", "llama4_text", "meta-llama/Llama-4-Scout-17B-16E-Instruct", EXPERTS | LLAMA_4),
    Family("Qwen 3.5", "qwen3_5", "Qwen/Qwen3.5-0.8B, Qwen/Qwen3.5-4B", TIED | DELTA, text="qwen3_5_text"),
    Family("Qwen 3.5, text alone", "qwen3_5_text", "", TIED | DELTA),
    Family("LFM2", "lfm2", "LiquidAI/LFM2-350M, LiquidAI/LFM2-1.2B", TIED | CONVOLVED),
    Family("Gemma 4", "gemma4", "google/gemma-4-E2B-it, google/gemma-4-E4B-it", GEMMA_4, text="gemma4_text"),
    Family("Gemma 4, large", "gemma4_text", "google/gemma-4-31b-it", GEMMA_4 | {"attention_k_eq_v": True}),
    Family(
        "Granite 4, dense", "granitemoehybrid", "ibm-granite/granite-4.0-h-1b, ibm-granite/granite-4.0-h-350m", HYBRID
    ),
    Family("Granite 4, attention only", "granitemoehybrid", "ibm-granite/granite-4.0-micro", HYBRID | ATTENTION),
    Family("Falcon-H1", "falcon_h1", "tiiuae/Falcon-H1-0.5B-Instruct", MAMBA | {"lm_head_multiplier": 0.5}),
    Family("Qwen 3 Next", "qwen3_next", "Qwen/Qwen3-Next-80B-A3B-Instruct", DELTA | EXPERTS),
    Family(
        "Nemotron-H", "nemotron_h", "nvidia/NVIDIA-Nemotron-Nano-9B-v2", {"layers_block_type": ["mamba", "attention"]}
    ),
    Family("OLMo, hybrid", "olmo_hybrid", "", DELTA),
    Family("Jamba", "jamba", "ai21labs/AI21-Jamba-Reasoning-3B", JAMBA),
    Family("Mamba 2", "mamba2", "", {"num_heads": 8, "state_size": 16, "n_groups": 1}),
)

BY_NAME = {family.name: family for family in FAMILIES}


def build(family: Family) -> Any:
    """Return a random model whose norms, heads and attention all have a visible effect."""
    torch.manual_seed(0)
    kind: Any = AutoModelForImageTextToText if family.text else AutoModelForCausalLM
    base = kind.from_config(family.configuration)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if parameter.dim() == 1 and not name.endswith(("A_log", "dt_bias")):
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "embed" in name or "lm_head" in name:
                parameter.mul_(3.0)
    return base


def adapt(base: Any, targets: Sequence[str] = PROJECTIONS) -> PeftModel:
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(targets))
    return get_peft_model(base, lora, autocast_adapter_dtype=False)


def trained(model: Any) -> Any:
    """Give an adapter an effect."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def refusal(family: Family, folder: Path) -> str:
    """Return the message with which a run refuses a family, empty if it does not."""
    config = changed(Config(), {"model.path": str(folder)})
    family.configuration.save_pretrained(folder)
    try:
        shape_of(config.model)
        check_architecture(changed(config, {"lora.target_modules": family.targets}), str(folder))
        base = build(family)
        if family.text:
            base.save_pretrained(folder)
            base = whole_model(str(folder))
        Policy(adapt(base, family.targets), 1.0, 16)
    except BadInput as error:
        return str(error)
    return ""


def rows(families: tuple[Family, ...] = FAMILIES) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| family | such as | trained? |"
    yield "|---|---|---|"
    for family in families:
        with TemporaryDirectory() as folder:
            said = refusal(family, Path(folder))
        text = re.sub(r"^(model )?\S*: ", "", said.partition(";")[0]).replace("layer 0", "a layer")
        text = re.sub(r" \(TypeError.*\)|^its log-probabilities .*: ", "", text)
        how = f"no: {text}"
        if not said:
            asked = family.asked or ((ALL_LINEAR,) if {*family.targets} != {*PROJECTIONS} else ())
            how = f"yes, with `lora.target_modules=[{','.join(asked)}]`" if asked else "yes"
        yield f"| {family.name} | {family.models} | {how} |"


if __name__ == "__main__":
    print("\n".join(rows()))

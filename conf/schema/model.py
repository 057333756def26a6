"""The base model and the adapter that is trained on it."""

import math

from pydantic.dataclasses import dataclass

from conf.settings import DECLARED, Rule, section, setting

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block, which can carry an adapter."""

FUSED = ("qkv_proj", "gate_up_proj")
"""Those of models that have queries, keys and values in one layer, and the two halves of the MLP in another (Phi-3)."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values vLLM accepts as `max_lora_rank`; adapters of a lower rank are padded."""

ALPHA_RULES = ("fixed", "proportional", "sqrt")

REFERENCE_RANK = 32
"""The rank at which all rules for alpha agree: the default one."""

READ = "read from config.json"

PATH = Rule(bool, "name a local folder, a hub id OWNER/NAME or embedded:smollm2-135m")
RANK = Rule(lambda rank: 1 <= rank <= VLLM_RANKS[-1], f"use 1 to {VLLM_RANKS[-1]}, the largest rank vLLM serves")
MODULES = Rule(
    lambda names: bool(names) and all(name in (*PROJECTIONS, *FUSED) and names.count(name) == 1 for name in names),
    f"list some of {', '.join((*PROJECTIONS, *FUSED))}, each once",
)


@dataclass(config=DECLARED)
class ShapeConfig:
    """The model's shape, so that a plan needs neither network nor weights; checked against config.json at start. All
    zero means not declared.
    """

    layers: int = setting(0, READ, ge=0)
    """Transformer blocks."""
    hidden: int = setting(0, READ, ge=0)
    """Width of the residual stream."""
    intermediate: int = setting(0, READ, ge=0)
    """Width of the MLP."""
    heads: int = setting(0, READ, ge=0)
    """Attention heads of the queries."""
    kv_heads: int = setting(0, READ, ge=0)
    """Attention heads of keys and values."""
    head_dim: int = setting(0, READ, ge=0)
    """Width of one attention head."""
    vocabulary: int = setting(0, READ, ge=0)
    """Rows of the embedding."""
    tied_head: bool = setting(True, READ)
    """Whether the embedding is also the output head."""
    head_norms: bool = setting(False, READ)
    """Whether queries and keys pass through norms of their own, as in Qwen 3 and Gemma 3."""
    context: int = setting(0, READ, ge=0)
    """Most tokens of one sequence."""


OF_A_MODEL = ("shape", "stop_tokens")
"""Settings that are written for one model."""


@dataclass(config=DECLARED)
class ModelConfig:
    """The base model, which stays as it is."""

    path: str = setting("embedded:smollm2-135m", "our choice: needs no network", rule=PATH, replaces=OF_A_MODEL)
    """A local folder in Hugging Face format, a hub id OWNER/NAME, or embedded:smollm2-135m."""
    dtype: str = setting("bfloat16", "what these models were trained in", choices=("auto", "bfloat16", "float32"))
    """Type of the weights and of the computation. auto: bfloat16 on a GPU, on a processor whichever it multiplies
    faster. A run keeps the one it began with."""
    stop_tokens: list[str] = setting([], "what the model names is enough for most")
    """Special tokens that end a response, beside those that the model's own files name: for a base model whose chat
    template ends turns with another one."""
    shape: ShapeConfig = section(ShapeConfig)


@dataclass(config=DECLARED)
class LoraConfig:
    """The adapter, a LoRA as PEFT has it. KL to base and the canary's movement are measured from the model without any
    adapter.
    """

    rank: int = setting(32, "Tina (arXiv 2504.15777)", rule=RANK)
    """Rank r of the adapter's matrices A and B."""
    alpha: int = setting(64, "our choice: twice the rank, as is common", ge=1)
    """Scale: the adapter adds alpha / rank · B A to a weight."""
    alpha_rule: str = setting("fixed", "the paper", choices=ALPHA_RULES)
    """How alpha follows the rank: fixed (lora.alpha at every rank), proportional (lora.alpha · rank / 32, so that
    alpha / rank is the same for all) or sqrt (lora.alpha · √(rank / 32)), a whole number of at least 1. At rank 32 all
    three agree. The run's config.yaml has the alpha that comes of it, as fixed."""
    rslora: bool = setting(False, "our choice: the published learning rates are for alpha / rank")
    """Scale by alpha / √rank instead (arXiv 2312.03732)."""
    dropout: float = setting(0.0, "our choice: engine and learner would run different policies", ge=0, le=0.9)
    """Dropout on the adapter's input while learning."""
    init: str = setting("default", "PEFT's default", choices=("default", "gaussian"))
    """What A begins as; B begins as zero, so that version 0 is the base model: default (uniform, rows 1 / √3 long) or
    gaussian (of standard deviation 1 / rank, PEFT's)."""
    target_modules: list[str] = setting(list(PROJECTIONS), 'all linear: "LoRA without regret"', rule=MODULES)
    """Names of the linear projections that carry an adapter; a layer has to have each of them. Phi-3 has other ones:
    [qkv_proj,o_proj,gate_up_proj,down_proj]."""
    start_from: str = setting("", "our choice")
    """Folder of a plain PEFT adapter of the same rank, alpha and modules to go on from; empty for a fresh one, whose B
    is zero."""

    def settle_alpha(self) -> None:
        """Replace alpha by what its rule makes of it at this rank, and the rule by fixed."""
        ratio = self.rank / REFERENCE_RANK
        factor = {"fixed": 1.0, "proportional": ratio, "sqrt": math.sqrt(ratio)}[self.alpha_rule]
        self.alpha, self.alpha_rule = max(round(self.alpha * factor), 1), "fixed"

"""The base model and the adapter that is trained on it."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.settings import DECLARED, SECTION, Rule, section, setting

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block, which can carry an adapter."""

ALL_LINEAR = "all-linear"
"""The value of `lora.target_modules` that stands for all linear modules of a model, as in PEFT."""

MODULE_NAMES = (
    *(*PROJECTIONS, "qkv_proj", "gate_up_proj", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"),
    *("in_proj", "w1", "w2", "w3", "per_layer_input_gate", "per_layer_projection", "per_layer_model_projection"),
    *("input_linear", "output_linear"),
)
"""Linear modules that can carry an adapter, of any family."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts as `max_lora_rank`; adapters of a lower rank are padded."""

PIN = "[0-9a-f]{40}"
"""Pattern of a commit, and of a digest."""

PATH = Rule(bool, "use a local folder, a Hub id OWNER/NAME[@REVISION] or bundled:smollm2-135m")
RANK = Rule(lambda rank: 1 <= rank <= VLLM_RANKS[-1], f"use 1 to {VLLM_RANKS[-1]}, the largest rank vLLM serves")
MODULES = Rule(
    lambda names: (
        names == [ALL_LINEAR] or (bool(names) and all(n in MODULE_NAMES and names.count(n) == 1 for n in names))
    ),
    f"use some of {', '.join(MODULE_NAMES)}, each once, or [{ALL_LINEAR}]",
)


@dataclass(config=DECLARED, frozen=True)
class ShapeConfig:
    """The model's shape: with it, a plan needs neither network nor weights. A run checks it against config.json at its
    start. All zeros: it is read from config.json.
    """

    num_hidden_layers: int = setting(0, SECTION, ge=0)
    """Transformer blocks."""
    hidden_size: int = setting(0, SECTION, ge=0)
    """Width of the residual stream."""
    intermediate_size: int = setting(0, SECTION, ge=0)
    """Width of the MLP."""
    num_attention_heads: int = setting(0, SECTION, ge=0)
    """Attention heads of the queries."""
    num_key_value_heads: int = setting(0, SECTION, ge=0)
    """Attention heads of keys and values."""
    head_dim: int = setting(0, SECTION, ge=0)
    """Width of one attention head."""
    vocab_size: int = setting(0, SECTION, ge=0)
    """Rows of the embedding."""
    tie_word_embeddings: bool = setting(True, SECTION)
    """Whether the embedding is also the output head."""
    head_norms: bool = setting(False, SECTION)
    """Whether queries and keys have norms of their own, as in Qwen 3 and Gemma 3."""
    fused_family: bool = setting(True, SECTION, resumable=True)
    """Whether learner.fused_kernels supports the model's family."""
    max_position_embeddings: int = setting(0, SECTION, ge=0)
    """Longest sequence, tokens."""
    layers: dict[str, int] = setting({}, SECTION)
    """Number of layers of each kind in config.json's `layer_types`. A kind whose layers use the keys and values of
    earlier layers begins with shared_. Empty: all are full_attention."""
    sizes: dict[str, int] = setting({}, SECTION)
    """Further sizes of such layers, by their keys in config.json; true is 1."""


@dataclass(config=DECLARED, frozen=True)
class ModelConfig:
    """The base model, which is frozen."""

    path: str = setting(
        "bundled:smollm2-135m", "our choice: it needs no network", rule=PATH, checkpointed="model", local_path=True
    )
    """The base model. A local folder is in Hugging Face format; a revision is a commit, a tag or a branch."""
    pin: str = setting("", "our choice", follows="model.path")
    """Commit of a Hub model, or digest of any other model's files. A run records it when it begins and then uses no
    other model. Empty: the present model."""
    dtype: str = setting(
        "bfloat16",
        "as these models were trained",
        choices=("auto", "bfloat16", "float32"),
        checkpointed="dtype",
        affects="evaluation learning",
    )
    """Data type of the weights and of the computation. auto: bfloat16 on a GPU; on a CPU, the type that it multiplies
    faster. A run keeps the type with which it began."""
    shared_weights: str = setting("auto", "our choice", choices=("off", "on", "auto"), affects="operation")
    """Whether engine and learner on one GPU share one copy of the model, which a third process holds, instead of
    loading one each. Untested on a GPU; off on a cluster and for models with other modules than a Llama. auto: on if
    one process can map another's GPU memory and if, according to the plan, the model does not fit otherwise."""
    stop_tokens: list[str] = setting([], "our choice: most models need none", follows="model.path", affects="response")
    """Special tokens that end a response, in addition to those in the model's files. A base model needs this if its
    chat template ends turns with another token."""
    shape: ShapeConfig = section(ShapeConfig, affects="operation", resumable=False, follows="model.path")

    @property
    def shares_weights(self) -> bool:
        """Whether engine and learner map one copy. A plan resolves auto first."""
        return self.shared_weights == "on"


@dataclass(config=DECLARED, frozen=True)
class LoraConfig:
    """The adapter: a LoRA in PEFT's format."""

    rank: int = setting(32, "as in Tina (arXiv 2504.15777)", rule=RANK, checkpointed="rank")
    """Rank r of the adapter's matrices A and B."""
    alpha: int = setting(64, "our choice: twice the rank, as is common", ge=1, checkpointed="alpha")
    """Scale: the adapter adds alpha / rank · B A to a weight."""
    rslora: bool = setting(False, "our choice: published learning rates assume alpha / rank", checkpointed="rslora")
    """Whether the scale is alpha / √rank instead (arXiv 2312.03732)."""
    dropout: float = setting(0.0, "our choice: with dropout, engine and learner run different policies", ge=0, le=0.9)
    """Dropout on the adapter's input in the learner."""
    init: str = setting("default", "as in PEFT", choices=("default", "gaussian"))
    """Initial values of A: default (uniform, rows 1 / √3 long) or gaussian (PEFT's, standard deviation 1 / rank). B
    begins as zero, so that the adapter changes nothing. Rows that lora.start_from fills keep its values."""
    target_modules: list[str] = setting(
        list(PROJECTIONS),
        '"LoRA without regret": all linear modules',
        rule=MODULES,
        checkpointed="target_modules",
    )
    """Linear modules that carry the adapter. Every layer must contain all of them, or at least one if the model has
    several kinds of layers. [all-linear]: all linear modules of the model's family, as Phi-3 needs."""
    start_from: str = setting("", "our choice", local_path=True, affects="learning rollout")
    """Adapter to continue from: the folder of a run, whose result counts, or of a plain PEFT adapter of this model,
    with at most this rank, any alpha and scaling, and modules among lora.target_modules. The run's own adapter begins
    as the same policy, up to rounding in model.dtype. Empty: a new adapter."""

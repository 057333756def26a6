"""The base model and the adapter that is trained on it."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.settings import DECLARED, Rule, section, setting

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

READ = "read from config.json"

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
    """The model's shape, so that a plan needs neither network nor weights. It is checked against config.json at the
    start. All zeros mean that it is not declared.
    """

    num_hidden_layers: int = setting(0, READ, ge=0)
    """Transformer blocks."""
    hidden_size: int = setting(0, READ, ge=0)
    """Width of the residual stream."""
    intermediate_size: int = setting(0, READ, ge=0)
    """Width of the MLP."""
    num_attention_heads: int = setting(0, READ, ge=0)
    """Attention heads of the queries."""
    num_key_value_heads: int = setting(0, READ, ge=0)
    """Attention heads of keys and values."""
    head_dim: int = setting(0, READ, ge=0)
    """Width of one attention head."""
    vocab_size: int = setting(0, READ, ge=0)
    """Rows of the embedding."""
    tie_word_embeddings: bool = setting(True, READ)
    """Whether the embedding is also the output head."""
    head_norms: bool = setting(False, READ)
    """Whether queries and keys have norms of their own, as in Qwen 3 and Gemma 3."""
    fused_family: bool = setting(True, READ, resumable=True)
    """Whether the model is of a family for which learner.fused_kernels acts."""
    max_position_embeddings: int = setting(0, READ, ge=0)
    """Longest sequence, tokens."""
    layers: dict[str, int] = setting({}, READ)
    """Layers of each kind in config.json's `layer_types`, with shared_ in front of a kind if they use the keys
    and values of earlier layers. Empty: all are full_attention."""
    sizes: dict[str, int] = setting({}, READ)
    """Further sizes that such layers have, by their keys in config.json. True is 1."""


@dataclass(config=DECLARED, frozen=True)
class ModelConfig:
    """The base model, which is frozen."""

    path: str = setting(
        "bundled:smollm2-135m", "our choice: needs no network", rule=PATH, checkpointed="model", local_path=True
    )
    """A local folder in Hugging Face format, a Hub id OWNER/NAME[@REVISION] (a commit, a tag or a branch), or
    bundled:smollm2-135m."""
    pin: str = setting("", "our choice: found when a run begins", follows="model.path")
    """The commit of a hub model, or a digest of the files of any other, that a run notes when it begins. All that comes
    after uses this model and no other. Empty: the present one."""
    dtype: str = setting(
        "bfloat16",
        "as these models were trained",
        choices=("auto", "bfloat16", "float32"),
        checkpointed="dtype",
        affects="evaluation learning",
    )
    """Data type of the weights and of the computation. auto: bfloat16 on a GPU, and on a CPU the type that it
    multiplies faster. A run keeps the type that it began with."""
    shared_weights: str = setting(
        "auto", "our choice: follows from the plan", choices=("off", "on", "auto"), affects="operation"
    )
    """Whether engine and learner on one GPU map one copy of the model, which a third process holds, instead of loading
    one each. Off on a cluster and for models with other modules than a Llama, untested on a GPU. auto: on where the
    planned update is 5 % shorter with it, or the model does not fit without it, and where one process can map another's
    GPU memory."""
    stop_tokens: list[str] = setting(
        [], "the model's own are enough for most", follows="model.path", affects="response"
    )
    """Special tokens that end a response, besides those in the model's own files: for a base model whose chat template
    ends turns with another one."""
    shape: ShapeConfig = section(ShapeConfig, affects="operation", resumable=False, follows="model.path")

    @property
    def shares_weights(self) -> bool:
        """Whether engine and learner map one copy. A plan resolves auto first."""
        return self.shared_weights == "on"


@dataclass(config=DECLARED, frozen=True)
class LoraConfig:
    """The adapter: a LoRA in PEFT's format. The movement in the adapter check is measured from the model without any
    adapter.
    """

    rank: int = setting(32, "Tina (arXiv 2504.15777)", rule=RANK, checkpointed="rank")
    """Rank r of the adapter's matrices A and B."""
    alpha: int = setting(64, "our choice: twice the rank, as is common", ge=1, checkpointed="alpha")
    """Scale: the adapter adds alpha / rank · B A to a weight."""
    rslora: bool = setting(
        False, "our choice: the published learning rates are for alpha / rank", checkpointed="rslora"
    )
    """Scale by alpha / √rank instead (arXiv 2312.03732)."""
    dropout: float = setting(0.0, "our choice: engine and learner would run different policies", ge=0, le=0.9)
    """Dropout on the adapter's input while learning."""
    init: str = setting("default", "PEFT's default", choices=("default", "gaussian"))
    """Initial values of A, of those rows that lora.start_from does not fill: default (uniform, rows 1 / √3 long) or
    gaussian (PEFT's, standard deviation 1 / rank). Their columns of B begin as zero and change nothing."""
    target_modules: list[str] = setting(
        list(PROJECTIONS), 'all linear: "LoRA without regret"', rule=MODULES, checkpointed="target_modules"
    )
    """Linear modules that carry an adapter. Every layer must have each of them, in models with layers of several kinds
    at least one. [all-linear]: all that the model's family has, such as qkv_proj,o_proj,gate_up_proj,down_proj of
    Phi-3."""
    start_from: str = setting("", "our choice: a new adapter", local_path=True, affects="learning rollout")
    """Folder of a plain PEFT adapter of this model to continue from, or of a run, whose result is then taken, of the
    run's rank or a lower one, any alpha and scaling, on the run's modules or some of them; empty for a new adapter. It
    is embedded in the run's own adapter, which begins as the same policy, up to the rounding of model.dtype."""

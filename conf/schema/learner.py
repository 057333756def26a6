"""The updates: batch, optimizer, memory; their loss; and the collapse guard."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.settings import DECLARED, setting

AUTO = "our choice: follows from memory and speed"
GRPO = "conf/algorithms.yaml, preset grpo"

MAX_SLOPE = 10.0
"""Largest bound of a clipped ratio, our choice: twice the widest clip in use, CISPO's of 5. A larger one bounds nothing
in practice."""


@dataclass(config=DECLARED, frozen=True)
class LearnerConfig:
    """The updates: number of samples, size of a step, use of memory."""

    problems_per_update: int = setting(8, "our choice", ge=1, le=2048)
    """Groups in one batch, each the samples of one problem."""
    max_staleness: int = setting(1, "our choice: the smallest with which generation and learning overlap", ge=0, le=64)
    """η, the number of versions that a group may lag behind the version it updates; 0 is synchronous. With 2, an update
    teaches less and takes less time (docs: staleness)."""
    dynamic_sampling: bool = setting(False, "the paper")
    """Dynamic sampling: whether groups whose samples all earned the same reward are replaced by others. Otherwise they
    count in the batch as groups without a gradient, which is cheaper."""
    learning_rate: float = setting(1e-5, '"LoRA without regret": ten times that of full fine-tuning', ge=1e-9, le=1)
    """Peak learning rate of AdamW."""
    schedule: str = setting("constant", "Dr. GRPO (arXiv 2503.20783)", choices=("constant", "linear", "cosine"))
    """How the learning rate falls as the budget, in time or in updates, is spent."""
    final_rate: float = setting(0.1, "Tina (arXiv 2504.15777)", ge=0, le=1)
    """Fraction of learning_rate at which a linear or cosine schedule ends."""
    warmup_updates: int = setting(0, "our choice", ge=0)
    """Updates over which the learning rate rises linearly from zero, at most a quarter of `budget.updates`."""
    weight_decay: float = setting(0.0, "our choice: the adapter is a small change already", ge=0, le=1)
    """Weight decay of AdamW."""
    beta1: float = setting(0.9, "Adam (arXiv 1412.6980)", ge=0, le=0.9999)
    """Decay of AdamW's first moment."""
    beta2: float = setting(0.999, "Adam (arXiv 1412.6980)", ge=0, le=0.99999)
    """Decay of AdamW's second moment."""
    max_grad_norm: float = setting(1.0, "TRL's default", gt=0)
    """Norm to which the gradient is clipped."""
    tokens_per_microbatch: int = setting(4096, "our choice", ge=1, le=2**24, affects="operation")
    """Tokens of one forward and backward pass; at least those of the longest sample, rollout.max_prompt_tokens +
    rollout.max_response_tokens, even where less is given. The prompt of a group counts once, and so does the beginning
    that all prompts share."""
    logprob_chunk: int = setting(256, "our choice: 0.4 GiB with 151,936 words", ge=1, le=2**24, affects="operation")
    """Response positions whose logits exist at the same time."""
    offload: str = setting(
        "cpu",
        "our choice: 0.05 s per update at rank 8, 1 s at rank 256",
        choices=("cpu", "none"),
        affects="operation",
    )
    """Place of the optimizer's state: cpu (host memory, stepped by DeepSpeed's CPU Adam) or none (on the
    learner's device)."""
    gradient_checkpointing: str = setting("auto", AUTO, choices=("auto", "on", "off"), affects="operation")
    """Whether activations are computed twice instead of kept; auto: on a GPU, whichever makes the planned update
    shorter: kept activations save time, but take memory from a shared GPU's KV cache. On the CPU they are kept."""
    fused_kernels: bool = setting(True, "our choice", affects="operation")
    """Whether a learner on a GPU uses liger-kernel's norms, rotary embedding and MLP for the model families they were
    tried on, and attention without padding where a check proves it right. Results only differ by rounding."""
    world_size: int | None = setting(None, "follows from the GPUs", ge=1, le=1024, affects="operation")
    """World size: learner processes that share the samples of a batch, at most one per GPU or per core. When null: with
    several GPUs, the number whose planned update is shortest, because model and lengths decide how much the other GPUs
    can generate; otherwise one, whose threads use all its cores."""

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed twice. A plan resolves auto first."""
        return self.gradient_checkpointing == "on"


@dataclass(config=DECLARED, frozen=True)
class AlgorithmConfig:
    """The loss: how a reward becomes an advantage, and how strongly that moves each token of the sample.

    A layer that names a preset sets all other keys here to the preset's values, except those it sets itself.
    """

    preset: str = setting("grpo", "the paper", choices=tuple(table("algorithms")))
    """Name of a set of values; conf/algorithms.yaml spells them out."""
    advantages: str = setting("group", GRPO, choices=("group", "mean_only", "leave_one_out", "over_mean"))
    """Advantage of a sample: group (its reward minus the group's mean, over the standard deviation), mean_only (not
    divided), leave_one_out (minus the mean of the other samples) or over_mean (the accuracy divided by its mean, as in
    MaxRL, the other parts of the reward not)."""
    surrogate: str = setting("clip", GRPO, choices=("clip", "cispo", "sapo"))
    """clip (PPO's), cispo (log-probability times a clipped weight without gradient) or sapo (a smooth gate around a
    ratio of 1 instead of clips)."""
    ratio: str = setting("token", GRPO, choices=("token", "sequence"))
    """Ratio of new to old probability, per token or for the whole sequence (geometric mean over its tokens)."""
    clip_low: float | None = setting(0.2, GRPO, ge=0, le=1)
    """The ratio is clipped to at least 1 − clip_low; null for no bound."""
    clip_high: float | None = setting(0.2, GRPO, ge=0, le=MAX_SLOPE - 1)
    """The ratio is clipped to at most 1 + clip_high; null for no bound, where the ratio is always 1, or with sapo."""
    dual_clip: float | None = setting(3.0, GRPO, gt=1, le=MAX_SLOPE)
    """Dual clip (arXiv 1912.09729): at a negative advantage A, where clip_high does not act, the surrogate is at least
    dual_clip · A; null for no bound, where the ratio is always 1, or with cispo or sapo."""
    aggregation: str = setting("token_mean", GRPO, choices=("token_mean", "sequence_mean", "constant"))
    """token_mean, sequence_mean (mean of each response's mean) or constant (every token counts
    1 / (samples × rollout.max_response_tokens)); always over all samples of a batch, masked ones included."""
    reference: str = setting("start", GRPO, choices=("start", "base"))
    """What KL and drift are measured from: start (the model as it is when reinforcement learning begins, with
    lora.start_from and the warm start) or base (without them). Without both they are the same."""
    kl: float = setting(0.0, GRPO, ge=0)
    """Coefficient of the KL divergence to algorithm.reference."""
    entropy: float = setting(0.0, GRPO, ge=0)
    """Coefficient of the entropy bonus."""
    mask_truncated: bool = setting(False, GRPO)
    """Whether truncated responses are masked; their rewards still count in the baseline."""
    overlong_buffer: float = setting(0.0, GRPO, ge=0, le=1, affects="reward")
    """Last fraction of rollout.max_response_tokens, over which the reward falls linearly by up to 1; 0 for no
    penalty."""
    steps_per_batch: int = setting(1, GRPO, ge=1, checkpointed="steps_per_batch")
    """Optimizer steps on the whole of one batch; together they are one update and make one version. The "old"
    probabilities stay those before the first step, and the learning rate is the same for all steps."""
    mismatch: str = setting("bypass", GRPO, choices=("token_tis", "sequence_mask", "icepop", "bypass"))
    """Correction of the difference between engine and learner. bypass: the old policy is the engine's. Otherwise the
    old policy is the learner's, and the engine's samples are weighted by token_tis (weights cut at 2), sequence_mask (a
    sequence's weight, 0 above 3) or icepop (weights outside 0.5 … 5 become 0). With one step per batch, the learner's
    ratio is then 1: clips, cispo, sapo and sequence ratios have no effect."""

    @property
    def ratio_acts(self) -> bool:
        """Whether the ratio of new to old probability can differ from 1."""
        return self.mismatch == "bypass" or self.steps_per_batch > 1

    @property
    def regularised(self) -> bool:
        """Whether the loss depends on samples without advantage too."""
        return self.kl > 0 or self.entropy > 0


@dataclass(config=DECLARED, frozen=True)
class GuardConfig:
    """The collapse guard. It compares entropy (of the training samples and of the reference set), response length,
    reward, format and KL to base with their own recent past, and entropy with the run's beginning. Falling
    entropy is ignored while the reward is above its beginning and near its best, since solved problems need none.
    Warnings are in events.jsonl, the summary and `guard/alarms`. Whatever the action, a `mismatch/ess` below one half
    causes a warning.
    """

    action: str = setting("warn", "the paper: it studies collapse", choices=("warn", "rollback", "stop"))
    """warn; rollback, which returns to the last checkpoint before the collapse and continues with other samples; or
    stop, which stops the run."""
    window: int = setting(20, "our choice", ge=8)
    """Number of past updates that a signal is compared with."""
    patience: int = setting(3, "our choice: the median of three ignores one outlier", ge=1)
    """Averaging window: number of newest updates whose median is compared."""
    limit: float = setting(3.5, "Iglewicz and Hoaglin's bound for outliers by median absolute deviation", gt=0)
    """Largest distance of that median, in robust standard deviations."""
    rollbacks: int = setting(2, "our choice: a collapse that recurs with other samples will recur again", ge=0)
    """Number of rollbacks after which a collapse stops the run."""

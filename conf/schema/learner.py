"""The updates: batch, optimizer, memory; their loss; and the collapse guard."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.settings import DECLARED, SECTION, setting

MICROBATCH = 4096
"""Tokens per forward and backward pass, if neither the user nor a plan chooses: our choice."""

MAX_SLOPE = 10.0
"""Largest bound of a clipped ratio, our choice: twice the widest clip in use, CISPO's of 5. A larger one bounds nothing
in practice."""


@dataclass(config=DECLARED, frozen=True)
class LearnerConfig:
    """The updates: samples, learning rate, memory."""

    problems_per_update: int = setting(8, "our choice", ge=1, le=2048)
    """Groups per update, each the samples of one problem."""
    max_staleness: int = setting(1, "our choice: the least that lets generation and learning overlap", ge=0, le=64)
    """η: largest number of versions by which a group may be behind the version that it updates; 0 is synchronous. With
    2, an update teaches less and takes less time (docs/studies/staleness.md)."""
    dynamic_sampling: bool = setting(False, "as in the paper")
    """Dynamic sampling: whether groups with zero variance (all samples earned the same reward) are replaced by others.
    Otherwise they stay in the batch and teach nothing, which costs less."""
    learning_rate: float = setting(1e-5, '"LoRA without regret": ten times the rate of full fine-tuning', ge=1e-9, le=1)
    """Peak learning rate of AdamW."""
    max_kl: float = setting(
        0.0, "our choice: 0.03 is not measured on a GPU", ge=0, le=1, follows="learner.max_staleness"
    )
    """Largest KL divergence, in nats per token, by which an update may move the policy. The learning rate is lowered to
    what keeps it, according to the stale samples with an advantage of the last five updates, once three have some; the
    schedule keeps its shape. 0: no limit. Measured for responses of ten tokens only: docs/studies/learning-rate.md."""
    schedule: str = setting("constant", "as in Dr. GRPO (arXiv 2503.20783)", choices=("constant", "linear", "cosine"))
    """How the learning rate falls while the budget, in time or updates, is used."""
    final_rate: float = setting(0.1, "as in Tina (arXiv 2504.15777)", ge=0, le=1)
    """Fraction of learning_rate at which a linear or cosine schedule ends."""
    warmup_updates: int = setting(0, "our choice", ge=0)
    """Updates in which the learning rate rises linearly from zero, at most a quarter of `budget.updates`."""
    weight_decay: float = setting(0.0, "our choice: an adapter is a small change already", ge=0, le=1)
    """Weight decay of AdamW."""
    beta1: float = setting(0.9, "as in Adam (arXiv 1412.6980)", ge=0, le=0.9999)
    """Decay of AdamW's first moment."""
    beta2: float = setting(0.999, "as in Adam (arXiv 1412.6980)", ge=0, le=0.99999)
    """Decay of AdamW's second moment."""
    max_grad_norm: float = setting(1.0, "TRL's default", gt=0)
    """Norm to which the gradient is clipped."""
    tokens_per_microbatch: int | None = setting(None, "our choice", ge=1, le=2**24, affects="operation")
    """Tokens per forward and backward pass. Null: 4,096, or up to 16,384 on a GPU with at least 40 GB where planned
    updates get shorter. Values below the longest sample (rollout.max_prompt_tokens +
    rollout.max_response_tokens) are raised to it. A group's prompt counts once, as does the beginning that all prompts
    share."""
    logprob_chunk: int = setting(256, "our choice: 0.4 GiB with 151,936 tokens", ge=1, le=2**24, affects="operation")
    """Response positions whose logits exist at the same time."""
    offload: str = setting(
        "cpu",
        "our choice: it takes 0.05 s per update at rank 8, 1 s at rank 256",
        choices=("cpu", "none"),
        affects="operation",
    )
    """Where the optimizer's state is: cpu (in host memory, updated by DeepSpeed's CPU Adam) or none (on the learner's
    device)."""
    gradient_checkpointing: str = setting("auto", "our choice", choices=("auto", "on", "off"), affects="operation")
    """Whether activations are computed twice instead of kept. auto: on a CPU they are kept; on a GPU, whichever makes
    planned updates shorter. Keeping saves time, but takes memory from the KV cache of a shared GPU."""
    fused_kernels: bool = setting(True, "our choice", affects="operation")
    """On a GPU: whether the learner uses liger-kernel's norms, rotary embedding and MLP for the families on which they
    were tried, and attention without padding if a check finds it correct. Results differ only by rounding."""
    world_size: int | None = setting(None, "our choice", ge=1, le=1024, affects="operation")
    """Learner processes that share the samples of a batch, at most one per GPU or per core. Null: with several GPUs,
    the number with the shortest planned update; otherwise one, which uses all its cores."""

    @property
    def microbatch(self) -> int:
        """Tokens per forward and backward pass. A plan resolves null first."""
        return self.tokens_per_microbatch or MICROBATCH

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed twice. A plan resolves auto first."""
        return self.gradient_checkpointing == "on"


@dataclass(config=DECLARED, frozen=True)
class AlgorithmConfig:
    """The loss: how rewards become advantages, and how strongly these move each token. A recipe or command line that
    names a preset sets all other keys here to the preset's values, except those that it gives itself. The defaults are
    those of preset grpo.
    """

    preset: str = setting("grpo", "the paper's", choices=tuple(table("algorithms")))
    """Name of a set of values. conf/algorithms.yaml lists them all."""
    advantages: str = setting("group", SECTION, choices=("group", "mean_only", "leave_one_out", "over_mean"))
    """Advantage of a sample. group: its reward minus the group's mean, divided by the standard deviation. mean_only:
    not divided. leave_one_out: minus the mean of the other samples. over_mean: the accuracy is divided by its mean, as
    in MaxRL, and the other parts of the reward are not."""
    surrogate: str = setting("clip", SECTION, choices=("clip", "cispo", "sapo"))
    """clip: as in PPO. cispo: log-probability times a clipped weight without gradient. sapo: a smooth gate around a
    ratio of 1."""
    ratio: str = setting("token", SECTION, choices=("token", "sequence"))
    """Ratio of new to old probability: of each token, or of the whole sequence (geometric mean over its tokens)."""
    clip_low: float | None = setting(0.2, SECTION, ge=0, le=1)
    """The ratio is clipped to at least 1 − clip_low. Null: no bound."""
    clip_high: float | None = setting(0.2, SECTION, ge=0, le=MAX_SLOPE - 1)
    """The ratio is clipped to at most 1 + clip_high. Null, no bound, is allowed if the ratio is always 1, or with
    sapo."""
    dual_clip: float | None = setting(3.0, SECTION, gt=1, le=MAX_SLOPE)
    """Dual clip (arXiv 1912.09729). At a negative advantage A, where clip_high does not act, the surrogate is at least
    dual_clip · A. Null, no bound, is allowed if the ratio is always 1, or with cispo or sapo."""
    aggregation: str = setting("token_mean", SECTION, choices=("token_mean", "sequence_mean", "constant"))
    """How the loss averages over a batch, masked samples included. token_mean: over all tokens. sequence_mean: over
    each response, then over responses. constant: every token counts 1 / (samples × rollout.max_response_tokens)."""
    reference: str = setting("start", SECTION, choices=("start", "base"))
    """The model from which KL and drift are measured: start (the model when reinforcement learning begins, with
    lora.start_from and the warm start) or base (without them)."""
    kl: float = setting(0.0, SECTION, ge=0)
    """Coefficient of the KL divergence from algorithm.reference."""
    entropy: float = setting(0.0, SECTION, ge=0)
    """Coefficient of the entropy bonus."""
    mask_truncated: bool = setting(False, SECTION)
    """Whether truncated responses are masked. Their rewards still count in the baseline."""
    overlong_buffer: float = setting(0.0, SECTION, ge=0, le=1, affects="reward")
    """Last fraction of rollout.max_response_tokens, over which the reward falls linearly by up to 1; 0 for no
    penalty."""
    steps_per_batch: int = setting(1, SECTION, ge=1, checkpointed="steps_per_batch")
    """Optimizer steps per batch, each on the whole batch and with the same learning rate. Together they are one update
    and make one version. The old probabilities stay those before the first step."""
    mismatch: str = setting("bypass", SECTION, choices=("token_tis", "sequence_mask", "icepop", "bypass"))
    """Correction of the difference between engine and learner. bypass: the old policy is the engine's. Otherwise it is
    the learner's, and the engine's samples are weighted: token_tis (weights cut at 2), sequence_mask (a sequence's
    weight, 0 above 3) or icepop (weights outside 0.5 … 5 become 0). With one step per batch, the learner's ratio is
    then 1, and clips, cispo, sapo and sequence ratios have no effect."""

    @property
    def ratio_acts(self) -> bool:
        """Whether the ratio of new to old probability can differ from 1."""
        return self.mismatch == "bypass" or self.steps_per_batch > 1

    @property
    def regularised(self) -> bool:
        """Whether the loss depends on samples without advantage too."""
        return self.kl > 0 or self.entropy > 0


ACTIONS = ("rollback", "warn", "stop")


@dataclass(config=DECLARED, frozen=True)
class GuardConfig:
    """The collapse guard. It compares response length, reward, format and KL from the base with their recent past.
    Without a fall of the reward, no change is a collapse: a policy that learns may move fast.
    A falling entropy is no sign of collapse: it falls as fast in a run that solves its problems. Warnings are in
    events.jsonl, the summary and `guard/alarms`. A `mismatch/ess` below one half always causes one.
    """

    action: str = setting(
        "rollback", "our choice: a run that has stopped learning wastes the rest of its budget", choices=ACTIONS
    )
    """rollback: return to an earlier version, halve the learning rate and continue with other samples: after a
    collapse, three validations far below the best, or an entropy above 1 and twice the early one, to the best validated
    version or the last before it; when no group has variance although problems are unsolved, to the newest version that
    had half of the early entropy. Only if at least as many updates still fit as are taken back, and ten; else warn.
    warn: continue, as the paper's recipes do. stop: end the run after a collapse."""
    window: int = setting(20, "our choice", ge=8)
    """Number of past updates with which a signal is compared."""
    patience: int = setting(3, "our choice: a median of three ignores one outlier", ge=1)
    """Number of newest updates whose median is compared."""
    limit: float = setting(3.5, "Iglewicz and Hoaglin's bound for outliers by median absolute deviation", gt=0)
    """Largest distance of that median, in robust standard deviations."""
    rollbacks: int = setting(2, "our choice: what returns at a quarter of the rate will return again", ge=0)
    """Largest number of rollbacks."""

    @property
    def goes_back(self) -> bool:
        return self.action == "rollback" and self.rollbacks > 0

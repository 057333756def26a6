"""Every setting of a run. The docstrings are the reference manual; `recipes/base.yaml` says where a value comes from.

One vocabulary: an *update* is what one batch does to the adapter (one optimizer step, unless
`algorithm.steps_per_batch` asks for more), a *version* is the adapter after so many updates, a *group* is the samples
of one problem. There is no other batch size than `problems_per_update` × `samples_per_problem`.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunConfig:
    """name: folder under `folder`; the recipe's name when empty. overwrite: start anew over a run, or an evaluation, of
    that name.
    seed: of the adapter's initialisation, the order of problems and every request.
    """

    name: str = ""
    folder: str = "runs"
    overwrite: bool = False
    seed: int = 0


@dataclass
class BudgetConfig:
    """Wall-clock, from the start of run.py to summary.json, over all resumes of a run; for evaluate.py, of each call.

    hours: the budget. minutes: replaces hours when given. updates: stop after so many updates, if sooner.
    grace_s: seconds that SIGTERM or SIGINT leave for the last checkpoint; a second signal ends them.
    price_per_hour: of the machine, in any currency; progress and summary then say what the run has cost.
    """

    hours: float = 24.0
    minutes: float | None = None
    updates: int | None = None
    grace_s: float = 60.0
    price_per_hour: float | None = None

    @property
    def seconds(self) -> float:
        return self.hours * 3600 if self.minutes is None else self.minutes * 60


@dataclass
class ShapeConfig:
    """The model's shape, so that a plan needs neither network nor weights; checked against config.json at start. All
    zero means not declared: read from config.json.

    layers: transformer blocks. hidden: width of the residual stream. intermediate: of the MLP. heads, kv_heads:
    attention heads of the queries, and of keys and values. head_dim: width of one. vocabulary: rows of the embedding.
    tied_head: whether the embedding is also the output head. context: most tokens of one sequence.
    """

    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocabulary: int = 0
    tied_head: bool = True
    context: int = 0


@dataclass
class ModelConfig:
    """path: `embedded:smollm2-135m`, a local folder in Hugging Face format, or a hub id OWNER/NAME.
    dtype: of the frozen weights and of the compute, bfloat16, float32 or auto: bfloat16 on a GPU, on a processor
    whichever it multiplies faster. A run keeps the one it began with. shape: see ShapeConfig.
    stop_tokens: special tokens that end a response, beside those that the model's own files name: for a base model
    whose chat template ends turns with another one.
    """

    path: str = "embedded:smollm2-135m"
    dtype: str = "bfloat16"
    stop_tokens: list[str] = field(default_factory=list)
    shape: ShapeConfig = field(default_factory=ShapeConfig)


@dataclass
class ExampleConfig:
    """problem: as the source would pose it. answer: the whole response the model is shown for it."""

    problem: str = ""
    answer: str = ""


@dataclass
class DataConfig:
    """source: of the training problems: `hub:OWNER/NAME[/CONFIG][:split]` of the Hugging Face hub, `file:PATH` (jsonl,
    json, csv, parquet), `reasoning_gym:NAME`, a generator that also scores the answers (one that would run them as code
    is refused), or `import:MODULE:FUNCTION`, a function that yields rows.
    parameters: of a reasoning_gym generator or the function. size: how many problems to train on; all when null. A
    generator draws so many, from which the held-out ones are taken too. scan: rows of a source to read at most, the
    first ones, streamed from the hub instead of downloaded whole; all when null. hub_timeout_s: seconds to wait for the
    hub in all.
    eval_source: of the held-out problems; the first `eval.problems` of the shuffled training source when empty.
    overlap: what becomes of training problems that are, or share most of their text with, one of eval_source: drop, or
    report_only.
    problem_field, answer_field: column names; guessed when empty. A problem may be a conversation that ends with the
    user's message. Of a worked solution, what follows its last `####` or is in its last `\\boxed{}` is the answer.
    system: system message; the conversation's or chat template's own, if it has one, when null.
    chat_settings: what the model's chat template takes besides the messages, such as {enable_thinking: false}.
    template: the user's message; `{problem}` is replaced by the problem.
    examples: solved problems shown before the real one, as earlier turns of the conversation.
    problem_pattern: a regular expression whose first group is the part of the source's problem to use.
    """

    source: str = "reasoning_gym:chain_sum"
    parameters: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    scan: int | None = None
    hub_timeout_s: float = 600.0
    eval_source: str = ""
    overlap: str = "drop"
    problem_field: str = ""
    answer_field: str = ""
    problem_pattern: str = ""
    system: str | None = None
    chat_settings: dict[str, Any] = field(default_factory=dict)
    template: str = "{problem}"
    examples: list[ExampleConfig] = field(default_factory=list)


@dataclass
class LoraConfig:
    """rank and alpha as in PEFT: the adapter adds alpha / rank · B A. rslora: alpha / √rank instead (arXiv 2312.03732).
    dropout: on the adapter's input while learning. target_modules: names of the linear projections that carry an
    adapter. start_from: folder of a plain PEFT adapter of the same rank, alpha and modules to go on from; empty for a
    fresh one, whose B is zero. KL to base and the canary's movement are measured from the model without any adapter.
    """

    rank: int = 32
    alpha: int = 64
    rslora: bool = False
    dropout: float = 0.0
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    start_from: str = ""


@dataclass
class RolloutConfig:
    """samples_per_problem: group size. max_prompt_tokens, max_response_tokens: limits of one sample.
    temperature: of the training samples; the learner's log-probabilities use the same (top_p 1, no top_k, always:
    sampling from a truncated distribution would make the engine's log-probabilities meaningless to the learner).
    max_concurrent_samples: sequences an engine decodes at once.
    actors: engines, each on a card of its own (one card is shared with the learner) or on cores of its own. When null:
    of several cards, one on each that the learner does not have; of several nodes without a card, one on each but the
    learner's; otherwise one. A resumed run may have another number than before.
    kv_cache_gib: host memory for the KV cache on the CPU; a GPU's follows from its share.
    typical_prompt_tokens, typical_response_tokens: means, for the plan's estimate of time alone; where a run of this
    recipe has been measured here its own are taken instead, and half of the limits when null.
    """

    samples_per_problem: int = 8
    max_prompt_tokens: int = 512
    max_response_tokens: int = 512
    temperature: float = 1.0
    max_concurrent_samples: int = 128
    actors: int | None = None
    kv_cache_gib: int = 2
    typical_prompt_tokens: int | None = None
    typical_response_tokens: int | None = None


@dataclass
class LearnerConfig:
    """problems_per_update: groups in one batch. max_staleness: η, the versions a group may lag behind the
    version it updates; 0 is synchronous. refill: groups whose samples all earned the same are replaced by others; if
    not, they count in the batch as groups without a gradient (the paper's way, and cheaper).
    learning_rate: peak, of AdamW. schedule: constant, linear or cosine, over the share of the budget spent, down to
    final_rate × learning_rate. warmup_updates: linear, from zero.
    weight_decay, beta1, beta2, max_grad_norm: of AdamW and gradient clipping.
    tokens_per_microbatch: tokens of one forward and backward pass, in which the prompt of a group counts once.
    logprob_chunk: response positions whose logits exist at a time.
    offload: where the optimizer's state lives: cpu (host memory), none (beside the weights), or auto: on a card only if
    it takes a small share of it. gradient_checkpointing: on (activations are computed twice instead of kept), off, or
    auto: on where a micro-batch's activations would fill most of a card.
    ranks: processes that compute a batch together, each a share of its samples, at most one a card (of several, rollout
    actors keep at least one) or one a core. When null: of several cards, as many as make the plan's update shortest,
    because what the others can generate depends on model and lengths; otherwise one, whose threads use all its cores. A
    resumed run may have other ranks than before.
    """

    problems_per_update: int = 8
    max_staleness: int = 1
    refill: bool = False
    learning_rate: float = 1e-5
    schedule: str = "constant"
    final_rate: float = 0.1
    warmup_updates: int = 0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    tokens_per_microbatch: int = 4096
    logprob_chunk: int = 1024
    offload: str = "auto"
    gradient_checkpointing: str = "auto"
    ranks: int | None = None

    def __post_init__(self) -> None:
        """YAML reads on and off without quotes as booleans, which a text field then holds as these words."""
        words = {"True": "on", "False": "off"}
        self.gradient_checkpointing = words.get(self.gradient_checkpointing, self.gradient_checkpointing)


@dataclass
class AlgorithmConfig:
    """The loss: what a reward says about a sample, and how strongly each of its tokens is moved for it.

    preset: grpo, dr_grpo, dapo, gspo or cispo: `conf/algorithms.yaml` spells out what each sets. A layer that names a
    preset sets all other keys here to the preset's values, except those it sets itself.
    advantages: group (reward less the group's mean, over its standard deviation), mean_only (not divided) or
    leave_one_out (less the mean of the other samples).
    surrogate: clip (PPO's) or cispo (log-probability times a clipped weight without gradient).
    ratio: of new to old probability, for each token or for the whole sequence (geometric mean over its tokens).
    clip_low, clip_high: the ratio is clipped to 1 − clip_low … 1 + clip_high; null for no bound. dual_clip: at negative
    advantages the surrogate falls no further than this many times the advantage; null for no limit.
    aggregation: token_mean, sequence_mean (mean of each response's mean) or constant (every token counts
    1 / (samples × rollout.max_response_tokens)); always over all samples of a batch, skipped and masked ones included.
    kl: coefficient of the KL divergence to the base model. entropy: coefficient of the bonus on entropy.
    mask_truncated: responses cut off at the limit are not learned from; their rewards still count in the baseline.
    overlong_buffer: last share of rollout.max_response_tokens over which the reward falls linearly by up to 1; 0 for
    no such penalty.
    steps_per_batch: optimizer steps on the whole of one batch; together they are one update and make one version. "Old"
    probabilities stay those before the first step, and the learning rate is the same for all.
    mismatch: what corrects the difference between engine and learner. The old policy is the learner's, and what the
    engine drew is weighted by token_tis (weights cut at 2), sequence_mask (a sequence's weight, 0 above 3) or icepop
    (weights outside 0.5 … 5 become 0); or bypass: the old policy is the engine's. With one step per batch the learner's
    ratio is 1 in all but bypass: then clips, cispo and sequence ratios could not act and are refused.
    """

    preset: str = "grpo"
    advantages: str = "group"
    surrogate: str = "clip"
    ratio: str = "token"
    clip_low: float | None = 0.2
    clip_high: float | None = 0.2
    dual_clip: float | None = None
    aggregation: str = "token_mean"
    kl: float = 0.0
    entropy: float = 0.0
    mask_truncated: bool = False
    overlong_buffer: float = 0.0
    steps_per_batch: int = 1
    mismatch: str = "bypass"

    @property
    def ratio_acts(self) -> bool:
        """Whether the ratio of new to old probability can differ from 1."""
        return self.mismatch == "bypass" or self.steps_per_batch > 1

    @property
    def regularised(self) -> bool:
        """Whether the loss depends on samples without advantage too."""
        return self.kl > 0 or self.entropy > 0


@dataclass
class CustomRewardConfig:
    """function: `module.path:function`, called as function(prompt, response, gold) in a worker process, under the same
    limits as a verdict; it returns a number. weight: of that number in the reward. The part is logged under the
    function's name.
    """

    function: str = ""
    weight: float = 1.0

    @property
    def name(self) -> str:
        return self.function.rpartition(":")[2]


@dataclass
class RewardConfig:
    """What a sample earns: a weighted sum of parts, each of them logged unweighted. `rewards/verify/__init__.py` has
    the rules by which answers are judged.

    preset: paper, open_rs, tina or dapo: `conf/rewards.yaml` spells out what each sets. A layer that names a preset
    sets the keys accuracy to after_thinking to the preset's values, except those it sets itself.
    accuracy: weight of the verdict, 1 for a correct answer. format: of 1 for `<think>…</think>` followed by the answer;
    the opening tag may be missing, since some chat templates put it into the prompt. boxed: of 1 for a box that can be
    read. cosine: of accuracy scaled by length in tokens, clamped at rollout.max_response_tokens (arXiv 2502.03373).
    cosine_correct, cosine_wrong: its values at no tokens and at the limit. (`algorithm.overlong_buffer` takes off for
    responses near the limit.)
    after_thinking: only a box after the last `</think>` counts as an answer.
    custom: further parts by a user's functions.
    timeout: what a verdict that ran out of time, or took its worker down, says about the sample: mask (nothing; it is
    left out of its group's baseline and not learned from, since a deadline can be the machine's fault) or wrong.
    Numbers beyond all proportion are unparsable in any case, and cost no deadline. `verify/timeout` counts timeouts.
    deadline_s: for one verdict; up to five times as long by the clock while its process lacks a core.
    memory_mib: memory a judging process may allocate.
    workers: processes that judge; as many as placement finds cores for when null.
    """

    preset: str = "paper"
    accuracy: float = 1.0
    format: float = 0.2
    boxed: float = 0.0
    cosine: float = 0.0
    cosine_correct: list[float] = field(default_factory=lambda: [1.0, 0.5])
    cosine_wrong: list[float] = field(default_factory=lambda: [-1.0, -0.5])
    after_thinking: bool = False
    custom: list[CustomRewardConfig] = field(default_factory=list)
    timeout: str = "mask"
    deadline_s: float = 2.0
    memory_mib: int = 1024
    workers: int | None = None


@dataclass
class EvalConfig:
    """problems: held-out problems judged before and after training, 0 for none. n: samples of each (evaluate.py has its
    own). temperature, top_p, max_response_tokens: of these samples; the rollouts' limit when null.
    """

    problems: int = 128
    n: int = 2
    temperature: float = 0.6
    top_p: float = 0.95
    max_response_tokens: int | None = None


@dataclass
class ValidationConfig:
    """Held-out accuracy while training, one sample of each problem with the settings of `eval`; `checkpoints/best` is
    the version that did best. So few problems tell large differences only.

    every: updates between validations, 0 for none; the learner waits for them. problems: the first so many of the
    held-out ones, always the same. share: of the time spent that validations may take; one that would exceed it is
    left out.
    """

    every: int = 0
    problems: int = 64
    share: float = 0.05


@dataclass
class CanaryConfig:
    """Whether the rollouts use the adapter they claim to: probes answered by every engine after every swap, and under
    synthetic adapters whenever an engine starts.

    problems: probe prompts. tokens: length of each response. noise_floor: mean |Δ log p| below which engine and learner
    always count as agreeing after a swap.
    """

    problems: int = 4
    tokens: int = 16
    noise_floor: float = 0.1


@dataclass
class GuardConfig:
    """Against collapse: entropy (of the samples learned from, and of the probe), response length, reward, format and KL
    to base are compared with their own recent past, and entropy with the run's beginning. What is found is in
    events.jsonl, the summary and `guard/alarms`.

    action: warn; rollback, to the last checkpoint before the collapse and on with other samples; or stop, which halts
    the run. window: updates a signal is compared with. patience: updates whose median is compared. limit: how many
    robust standard deviations that median may be away. rollbacks: after so many of them, a collapse halts the run.
    """

    action: str = "warn"
    window: int = 20
    patience: int = 3
    limit: float = 3.5
    rollbacks: int = 2


@dataclass
class CurriculumConfig:
    """rest_epochs: so many epochs a problem is left out after a group that was all right or all wrong; 0 to pose every
    problem in every epoch, as the paper does. Solve rates by problem are kept in the checkpoint either way.
    """

    rest_epochs: int = 0


@dataclass
class CheckpointConfig:
    """every: updates between checkpoints; keep_last: how many to keep."""

    every: int = 10
    keep_last: int = 2


@dataclass
class DashboardConfig:
    """Of Ray. host: address to bind to; loopback unless asked otherwise. port: any free one for 0."""

    host: str = "127.0.0.1"
    port: int = 8265


@dataclass
class Config:
    """plan: print placement, memory and time (evaluate.py: what would be drawn), then leave.
    device: auto (what the machine has), cpu, or for a plan the name of a card such as A40.
    simulate: with plan=true, numbers of cards (1 to 1024 each) to simulate the run on, as [1,8,64,512].

    Of evaluate.py alone, with the settings of `eval` but its n and problems:
    benchmarks: sets of problems, each by a name of `conf/benchmarks.yaml`, as a source like data.source, or `heldout`,
    the recipe's own; they are posed as data.template and the settings beside it say. n: samples of each problem; 16 as
    for the paper's pass@16. limit: of each benchmark the first so many problems, in an order that depends on nothing
    but their text; all when null. adapter: folder of a plain PEFT adapter, whose rank, alpha and modules then are
    those of `lora`, to compare with the base model; the base model alone when empty. Within the folder of a run it
    brings that run's settings, name and folder, in the recipe's place.

    The sections: run (name and seed), budget (wall-clock), model, data, lora (the adapter), rollout (sampling for
    training), learner (the updates), algorithm (their loss), reward, eval, validation (while training), canary
    (agreement of engine and learner), guard (against collapse), curriculum (the choice of problems), checkpoint,
    dashboard.
    """

    plan: bool = False
    device: str = "auto"
    simulate: list[int] = field(default_factory=list)
    benchmarks: list[str] = field(default_factory=lambda: ["heldout"])
    n: int = 16
    limit: int | None = None
    adapter: str = ""
    run: RunConfig = field(default_factory=RunConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    dashboard: DashboardConfig = field(default_factory=DashboardConfig)


@dataclass
class SweepConfig:
    """Of `launch/sweep.py` alone, given as sweep.name=… and so on. A cell is one run of a sweep.

    name: folder of the sweep under `run.folder`, the cells' folders in it; the recipe's name and -sweep when empty.
    hours: budget of the whole sweep. Of cells that run one after another, each gets an equal part, among those left, of
    what those before it have left of it; the seconds between two cells are not counted. When null, every cell has the
    budget of its own settings.
    minutes: replaces hours when given.
    stop_below: early stopping. A cell is ended half-way through its budget if its accuracy on training samples, over
    the tenth of the budget before, is below this share of that of the best cell of the same model by then; null for
    none.
    """

    name: str = ""
    hours: float | None = None
    minutes: float | None = None
    stop_below: float | None = None

    @property
    def seconds(self) -> float | None:
        hours = None if self.hours is None else self.hours * 3600
        return hours if self.minutes is None else self.minutes * 60

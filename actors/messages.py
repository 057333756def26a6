"""The vocabulary of the project: frozen dataclasses that travel between actors, in the order of a group's life.

A *group* is the samples of one problem, all drawn from one *version* of the adapter. An *update* is what one batch does
to the adapter, usually one optimizer step; it turns version v into v + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b


@dataclass(frozen=True)
class Problem:
    """One question with a checked gold answer.

    prompt: the text as the model sees it, chat template applied.
    grader: how answers to a generator's entry are scored (see `rewards.generators`), in which case `gold` is the
        entry's own answer, if it has one; else empty.
    columns: all of the row, as JSON, for a user's part of the reward.
    """

    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    gold: str
    grader: str = ""
    columns: str = "{}"


@dataclass(frozen=True)
class LeftOut:
    """A row that is not used, or that is used in spite of the reason.

    source: last part of the key that names its source, `source` or `eval_source`.
    """

    source: str
    reason: str
    problem: str
    gold: str


@dataclass(frozen=True)
class ProblemSet:
    """Training and held-out problems.

    dropped: rows of both that were left out, by reason, and overlaps that `data.overlap` lets stay.
    left_out: these rows, one by one.
    """

    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]
    dropped: dict[str, int]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of which problems these are."""
        return blake2b(repr([problem.id for problem in (*self.train, *self.heldout)]).encode()).hexdigest()


@dataclass(frozen=True)
class AdapterRef:
    """One published version of the policy: a folder in plain PEFT format.

    version: negative for a synthetic adapter, which is noise for `actors.adapter_check.at_start`.
    incarnation: counts restores; a version number can be reached twice in the life of a run, a name never.
    """

    version: int
    incarnation: int
    path: str

    @property
    def name(self) -> str:
        return f"synthetic-{-self.version}" if self.version < 0 else f"policy-v{self.version}-r{self.incarnation}"


@dataclass(frozen=True)
class Sampling:
    """How an engine draws samples. seed: makes a request reproducible given the weights and the batch."""

    samples: int
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Sample:
    """One response.

    Engines give both sequences as arrays, which travel as they lie in memory: tuples would cost the coordinator,
    through which every group passes several times, most of its time.

    token_ids: the last one is the end-of-sequence token, if that was reached.
    logprobs: the engine's, natural, of each token under the distribution actually sampled (after temperature).
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    text: str
    finish_reason: str

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


class Status(StrEnum):
    """What came of the attempt to verify a response."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True)
class Verdict:
    """What the verifier found of one response. score: 1.0 for a correct answer, else 0.0."""

    score: float
    status: Status
    extracted: str | None
    milliseconds: float


@dataclass(frozen=True)
class Reward:
    """What a sample earns.

    total: weighted sum of the parts.
    parts: unweighted, by name; `overlong` is subtracted.
    counted: whether a timeout or a crash counts as wrong.
    failure: of a user's part of the reward; it says nothing about the verdict.
    complaint: which function that was, what it did and on which problem.
    """

    total: float
    parts: dict[str, float]
    verdict: Verdict
    counted: bool = False
    failure: Status | None = None
    complaint: str = ""

    @property
    def status(self) -> Status:
        """How the judgement as a whole has ended."""
        return self.failure or self.verdict.status

    @property
    def masked(self) -> bool:
        """Whether the sample has no reward, since its judgement ended in a timeout or a crash."""
        return self.status in (Status.TIMEOUT, Status.CRASH) and not self.counted


@dataclass(frozen=True)
class Group:
    """The samples of one problem.

    index: number by admission.
    adapter: the one version that drew all samples; None for the base model.
    rewards: parallel to `samples`; empty until verified.
    """

    index: int
    problem: Problem
    adapter: AdapterRef | None
    samples: tuple[Sample, ...]
    rewards: tuple[Reward, ...] = ()

    @property
    def version(self) -> int:
        """The version that drew the samples; only a group drawn by the policy has one."""
        if self.adapter is None:
            raise ValueError(f"group {self.index} was drawn by the base model and has no version")
        return self.adapter.version

    @property
    def tokens(self) -> int:
        """Tokens of all its samples."""
        return sum(len(sample.token_ids) for sample in self.samples)

    @property
    def failed(self) -> bool:
        """Whether not one of its samples could be verified."""
        return all(reward.masked for reward in self.rewards)

    @property
    def complaint(self) -> str:
        """The first complaint about a user's function; empty without any."""
        return next((reward.complaint for reward in self.rewards if reward.complaint), "")

    @cached_property
    def zero_variance(self) -> bool:
        """Whether all verified samples earned the same, so that no advantage differs from zero."""
        return len({reward.total for reward in self.rewards if not reward.masked}) <= 1


@dataclass(frozen=True)
class Batch:
    """The groups of one update. version: the one they are about to improve."""

    version: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class UpdateStats:
    """What one update did.

    adapter: the version it made.
    metrics: the learner's, by their names in metrics.jsonl.
    fault: why a step was skipped: what was not finite, and from which samples; empty otherwise.
    """

    adapter: AdapterRef
    metrics: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of one response's tokens under the learner's current weights and under the base model."""

    policy: tuple[float, ...]
    base: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """How far the learner's current version has moved from the base, seen on given responses.

    entropy, base_entropy: mean over the full vocabulary, in nats per token at the rollouts' temperature.
    kl_to_base: exact KL(policy ‖ base), in the same unit.
    adapter_norm: Frobenius norm of scaling · BA over all layers, by type of module.
    effective_rank: of BA, by `<layer>.<module>`.
    """

    version: int
    entropy: float
    base_entropy: float
    kl_to_base: float
    adapter_norm: dict[str, float]
    effective_rank: dict[str, float]


@dataclass(frozen=True)
class Progress:
    """What a watcher sees while a run goes on.

    spent, left: seconds of the budget.
    updates_left: forecast of the updates that still fit.
    latest: the last row of metrics.jsonl.
    cost: of the time spent, if an hour has a price.
    doing: the step of a phase that takes long, in words.
    answers: whether an engine is up.
    base: held-out pass@1 of the base model, once it is known.
    """

    phase: str
    updates: int
    spent: float
    left: float
    updates_left: int | None
    latest: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
    doing: str = ""
    answers: bool = True
    base: float | None = None

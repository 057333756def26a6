"""The vocabulary of the project: frozen dataclasses that travel between actors.

A *group* is the samples of one problem, all drawn from one *version* of the adapter. An *update* is what one batch does
to the adapter, usually one optimizer step; it turns version v into v + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One question with a checked gold answer.

    `prompt` is the text as the model sees it (chat template applied), `prompt_ids` its token ids. `grader` is empty, or
    says how a generator scores answers itself (see `rewards.graders`); `gold` is then its own answer, if it has one.
    """

    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    gold: str
    grader: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A row that is not used, or is used in spite of what the reason says. source: last part of the key that names it,
    `source` or `eval_source`.
    """

    source: str
    reason: str
    problem: str
    gold: str


@dataclass(frozen=True)
class ProblemSet:
    """Training and held-out problems. dropped: how many rows of both were left out, by reason; overlaps that
    `data.overlap` lets stay are counted there, too. left_out: these rows, one by one.
    """

    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]
    dropped: dict[str, int]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def digest(self) -> str:
        """Of which problems these are."""
        return blake2b(repr([problem.id for problem in (*self.train, *self.heldout)]).encode()).hexdigest()


@dataclass(frozen=True)
class AdapterRef:
    """One published version of the policy: a folder in plain PEFT format.

    `incarnation` counts restores: a version number can be reached twice in the life of a run, a name never. Negative
    versions are synthetic: noise for `actors.adapter_check.startup_check`.
    """

    version: int
    incarnation: int
    path: str

    @property
    def synthetic(self) -> bool:
        return self.version < 0

    @property
    def name(self) -> str:
        return f"synthetic-{-self.version}" if self.synthetic else f"policy-v{self.version}-r{self.incarnation}"


@dataclass(frozen=True)
class Sampling:
    """How an engine draws samples. `seed` makes a request reproducible given the weights and the batch."""

    samples: int
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Sample:
    """One response.

    `logprobs[i]` is the engine's natural-log probability of `token_ids[i]` under the distribution actually sampled
    (after temperature). The end-of-sequence token, if reached, is the last of `token_ids`. Engines give both as arrays,
    which travel as they lie in memory: as tuples they would cost the coordinator, through which every group passes
    several times, most of its time.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    text: str
    finish_reason: str

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


class Status(StrEnum):
    """What became of the attempt to judge a response."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True)
class Verdict:
    """The judgement of one response: `score` is 1.0 for a correct answer, else 0.0."""

    score: float
    status: Status
    extracted: str | None
    milliseconds: float


@dataclass(frozen=True)
class Reward:
    """What a sample earns: the weighted sum of named parts, and the verdict behind it.

    `parts` are unweighted; `overlong` is taken off. A sample whose verdict is a timeout or a crash has no reward, it is
    `masked`, unless such verdicts are `counted` as wrong.
    """

    total: float
    parts: dict[str, float]
    verdict: Verdict
    counted: bool = False

    @property
    def masked(self) -> bool:
        return self.verdict.status in (Status.TIMEOUT, Status.CRASH) and not self.counted


@dataclass(frozen=True)
class Group:
    """The samples of one problem, drawn by exactly one adapter version (None: the base model).

    `index` numbers groups by admission. `rewards` is empty until verified, then parallel to `samples`.
    """

    index: int
    problem: Problem
    adapter: AdapterRef | None
    samples: tuple[Sample, ...]
    rewards: tuple[Reward, ...] = ()

    @property
    def version(self) -> int:
        """Adapter version that drew the samples; only a group drawn by the policy has one."""
        if self.adapter is None:
            raise ValueError(f"group {self.index} was drawn by the base model and has no version")
        return self.adapter.version

    @property
    def tokens(self) -> int:
        """Tokens of all its samples."""
        return sum(len(sample.token_ids) for sample in self.samples)

    @property
    def failed(self) -> bool:
        """Whether not one of its samples could be judged."""
        return all(reward.masked for reward in self.rewards)

    @cached_property
    def zero_variance(self) -> bool:
        """Whether all judged samples earned the same, so that no advantage differs from zero."""
        return len({reward.total for reward in self.rewards if not reward.masked}) <= 1


@dataclass(frozen=True)
class Batch:
    """The groups of one update, and the version they are about to improve."""

    version: int
    groups: tuple[Group, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all its samples."""
        return sum(group.tokens for group in self.groups)


@dataclass(frozen=True)
class UpdateStats:
    """What one update did: the adapter it made and the learner's metrics under their metrics.jsonl names.

    fault: why the update was skipped, that is what was not a finite number and from which samples; empty otherwise.
    """

    adapter: AdapterRef
    metrics: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of one response under the learner's current weights and under the base model."""

    policy: tuple[float, ...]
    base: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """What the learner's current version is, seen on given responses: mean full-vocabulary entropy per token, its own
    and the base model's, and exact KL(policy ‖ base), in nats at the rollouts' temperature.

    adapter_norm: Frobenius norm of scaling · BA over all layers, by type of module. effective_rank: of BA, by
    `<layer>.<module>`.
    """

    version: int
    entropy: float
    base_entropy: float
    kl_to_base: float
    adapter_norm: dict[str, float]
    effective_rank: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: all as in summary.json, `final` as `Evaluation.summary` and `plasticity` as
    `Plasticity.measure` have them.
    """

    status: str
    reason: str
    final: dict[str, Any] | None = None
    plasticity: dict[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """What a watcher sees while a run goes on. `latest` is the last row of metrics.jsonl. updates_left: forecast of the
    updates that still fit. cost: of the time spent, if an hour has a price. notice: what was found amiss last.
    """

    phase: str
    updates: int
    spent: float
    left: float
    updates_left: int | None
    latest: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
    notice: str = ""

"""The message types: frozen dataclasses that actors send each other, in the order of their use.

A *group* is the samples of one problem, all from one *version* of the adapter. An *update* is the change of the adapter
by one batch, usually one optimizer step; it turns version v into v + 1.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from math import nan
from statistics import fmean


@dataclass(frozen=True)
class Problem:
    """One question with its reference answer.

    prompt: the text as the model sees it, chat template applied.
    grader: how a generator's entry is scored (`rewards.generators`); `gold` is then the entry's own answer, if any.
    columns: the whole row as JSON, for a user's part of the reward.
    source: the name of its source in a mixture; empty without one, and for problems of data.eval_source.
    text: as its source has it.
    """

    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    gold: str
    grader: str = ""
    columns: str = "{}"
    source: str = ""
    text: str = ""


@dataclass(frozen=True)
class FilteredRow:
    """A filtered row, or one used in spite of the reason. source: `source`, `eval_source` or `mixture.NAME`."""

    source: str
    reason: str
    problem: str
    gold: str


@dataclass(frozen=True)
class EvaluationSet:
    """Problems that policies are evaluated on, with n samples each. name: empty for the held-out problems."""

    name: str
    n: int
    problems: tuple[Problem, ...]


HELD_OUT_SETS = "held out"
"""Name, in `ProblemSet.digests`, of the held-out and the validation problems together. No benchmark has it."""


@dataclass(frozen=True)
class ProblemSet:
    """Training and held-out problems.

    heldout: those that evaluations report.
    filtered_counts: number of rows by reason, also of contaminated ones that `data.contamination` keeps.
    filtered: these rows, one by one.
    selection: the held-out problems that choose the run's result, and that nothing reports.
    candidates: those that the warm start draws from: with `self` the training problems, same ids, with the prompt that
        shows `warm_start.few_shot`; otherwise those of `warm_start.source`, with the prompt that is learned.
    solutions: parallel to `candidates`, the responses to learn as an engine would return them, without
        log-probabilities and ending with the end-of-sequence token however long they are; empty with `self`.
    benchmarks: the problems of `eval.benchmarks`.
    """

    train: tuple[Problem, ...]
    heldout: tuple[Problem, ...]
    filtered_counts: dict[str, int]
    filtered: tuple[FilteredRow, ...] = ()
    selection: tuple[Problem, ...] = ()
    candidates: tuple[Problem, ...] = ()
    solutions: "tuple[Sample, ...]" = ()
    benchmarks: tuple[EvaluationSet, ...] = ()

    @property
    def all(self) -> tuple[Problem, ...]:
        return (*self.train, *self.heldout, *self.selection)

    @property
    def digests(self) -> dict[str, str]:
        """Hashes of problems and answers by part: HELD_OUT_SETS without columns, each benchmark by its name, and as ""
        all of training, validation and report. A changed data.eval_source changes HELD_OUT_SETS, which comes first, and
        "".
        """
        benchmarks = {benchmark.name: digest_of((benchmark.problems,)) for benchmark in self.benchmarks}
        held_out = digest_of((self.selection, self.heldout), columns=False)
        return {HELD_OUT_SETS: held_out, **benchmarks, "": digest_of((self.all,))}


def digest_of(parts: Iterable[Sequence[Problem]], columns: bool = True) -> str:
    """Return a hash of problems, with all that their verdicts and, if `columns`, their rewards depend on."""
    digest = blake2b()
    for part, problems in enumerate(parts):
        for problem in problems:
            digest.update(repr((part, problem.id, problem.gold, problem.grader, columns and problem.columns)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class AdapterRef:
    """One published version of the policy: a folder in plain PEFT format.

    incarnation: number of restores so far. A run can reach a version number twice, but a name only once.
    synthetic: whether it is noise for `actors.adapter_check.at_start`; its version is then a number from 1 on.
    """

    version: int
    incarnation: int
    path: str
    synthetic: bool = False

    @property
    def name(self) -> str:
        return f"synthetic-{self.version}" if self.synthetic else f"policy-v{self.version}-r{self.incarnation}"


@dataclass(frozen=True)
class Sampling:
    """Settings of one request. seed: makes it reproducible, given the weights and the engine's batch."""

    samples: int
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Request:
    """A group to generate. index: the group's. adapter: the policy's, None for the base model."""

    index: int
    problem: Problem
    adapter: AdapterRef | None
    sampling: Sampling


def request_seed(run_seed: int, purpose: str, index: int) -> int:
    """Return a 31-bit seed that depends on nothing but its arguments, so that a resumed run repeats its requests."""
    digest = blake2b(f"{run_seed}/{purpose}/{index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


Spans = tuple[tuple[int, int], ...]
"""Half-open ranges of a response's tokens, in order and apart."""


@dataclass(frozen=True)
class Sample:
    """One response.

    Engines return both sequences as arrays, which Ray sends as they lie in memory. Tuples would take most of the
    coordinator's time, since every group passes it several times.

    token_ids: the last one is the end-of-sequence token, if that was reached.
    logprobs: the engine's natural log-probability of each sampled token, under the sampled distribution (after
        temperature).
    given: the tokens that an environment wrote; the others were sampled.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    text: str
    finish_reason: str
    given: Spans = ()

    @property
    def given_tokens(self) -> int:
        return sum(end - start for start, end in self.given)

    @property
    def sampled_tokens(self) -> int:
        return len(self.token_ids) - self.given_tokens

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


class Status(StrEnum):
    """The result of an attempt to verify a response."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True)
class Verdict:
    """The verifier's result for one response. score: 1.0 for a correct answer, else 0.0."""

    score: float
    status: Status
    extracted: str | None
    milliseconds: float


KIND_OF_ERROR = re.compile(r"^\w+ [A-Za-z]*|\(\S+, line \d+\)")
"""Matches what errors of one kind share: the kind of error or result, and the line."""


@dataclass(frozen=True)
class Complaint:
    """A user's function that gave no reward. error: what it did instead, as a sentence after its name."""

    function: str
    error: str

    @property
    def kind(self) -> str:
        return " ".join([self.function, *KIND_OF_ERROR.findall(self.error)])

    def __str__(self) -> str:
        return f"'{self.function}' {self.error}"


@dataclass(frozen=True)
class Reward:
    """The reward of a sample.

    total: weighted sum of the parts.
    parts: unweighted, by name; `overlong` is subtracted.
    counted: whether a timeout or a crash counts as wrong.
    failure: how a user's part of the reward failed; the verdict may be right all the same.
    complaints: one for each such part.
    partial: whether it lacks what only training has: a rank among all responses to a problem.
    """

    total: float
    parts: dict[str, float]
    verdict: Verdict
    counted: bool = False
    failure: Status | None = None
    complaints: tuple[Complaint, ...] = ()
    partial: bool = False

    @property
    def status(self) -> Status:
        """The failure of a user's function, or else the verdict's status."""
        return self.failure or self.verdict.status

    @property
    def masked(self) -> bool:
        """Whether the sample has no reward, because of a timeout or a crash."""
        return self.status in (Status.TIMEOUT, Status.CRASH) and not self.counted


@dataclass(frozen=True)
class Group:
    """The samples of one problem.

    index: number in the order of admission.
    adapter: the version that sampled all of them; None for the base model.
    rewards, advantages: parallel to `samples`; empty until verified. An advantage is None for a sample that the learner
        leaves out.
    """

    index: int
    problem: Problem
    adapter: AdapterRef | None
    samples: tuple[Sample, ...]
    rewards: tuple[Reward, ...] = ()
    advantages: tuple[float | None, ...] = ()

    @property
    def version(self) -> int:
        """The adapter's version. Raises ValueError for a group of the base model."""
        if self.adapter is None:
            raise ValueError(f"group {self.index} was sampled from the base model and has no version")
        return self.adapter.version

    @property
    def tokens(self) -> int:
        """Number of sampled tokens."""
        return sum(sample.sampled_tokens for sample in self.samples)

    @property
    def failed(self) -> bool:
        """Whether no sample could be verified."""
        return all(reward.masked for reward in self.rewards)

    @property
    def complaints(self) -> dict[str, Complaint]:
        """The first complaint of each kind about users' functions."""
        first_of_kind = dict[str, Complaint]()
        for complaint in chain.from_iterable(reward.complaints for reward in self.rewards):
            first_of_kind.setdefault(complaint.kind, complaint)
        return first_of_kind

    @property
    def pass_rate(self) -> float | None:
        """Mean accuracy of the samples with a verdict; None without any."""
        verified = [reward.parts["accuracy"] for reward in self.rewards if not reward.masked]
        return fmean(verified) if verified else None

    @cached_property
    def zero_variance(self) -> bool:
        """Whether all verified samples have the same reward."""
        return len({reward.total for reward in self.rewards if not reward.masked}) <= 1

    @property
    def learnable(self) -> bool:
        """Whether a sample has an advantage that the learner uses. None has if all rewards are the same, or if they
        differ only in samples that the learner leaves out.
        """
        return any(self.advantages)


@dataclass(frozen=True)
class Batch:
    """The groups of one update. version: the version before the update."""

    version: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Measured:
    """What the learner measured while it computed the gradient of a batch.

    examples: number of samples with a gradient.
    kl: KL(engine ‖ learner), nats per token of the samples with an advantage; NaN without such a token. It may be
        infinite.
    staleness: the mean of the same tokens, in versions.
    """

    examples: int = 0
    kl: float = nan
    staleness: float = 0.0


@dataclass(frozen=True)
class UpdateStats:
    """The result of one update.

    adapter: the new version.
    metrics: the learner's, by their names in metrics.jsonl.
    fault: why a step was skipped: the value that was not finite, and its samples; empty otherwise.
    """

    adapter: AdapterRef
    metrics: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of a response's tokens under the learner's weights, the base model, and another reference."""

    policy: tuple[float, ...]
    base: tuple[float, ...]
    reference: tuple[float, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """Drift of the learner's current version from the reference (`algorithm.reference`), measured on given responses.

    entropy, base_entropy: the policy's and the reference's mean over the full vocabulary, in nats per token at the
        rollouts' temperature.
    kl_to_base: exact KL(policy ‖ reference), in the same unit.
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
    """The state of a run for the console and Ray's metrics.

    spent, left: seconds of the budget.
    updates_left: forecast of the updates that still fit.
    latest: the last row of metrics.jsonl.
    cost: cost of the time spent, if an hour has a price.
    doing: the step of a long phase, in words.
    answers: whether an engine is up.
    scores: pass@1 so far, by the model and the problems in words.
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
    scores: dict[str, float] = field(default_factory=dict)

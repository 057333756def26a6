"""Models of the files in the folders of runs, checkpoints, sweeps and evaluations, for reading and writing them."""

import re
import shlex
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from microbudget_rl.conf.parsing import FORMAT

LARGEST = 2**53
"""Largest whole number that every reader of JSON keeps exactly."""

Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Amount = Annotated[float, Field(ge=0, le=1e300)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _in_order(ends: list[float]) -> list[float]:
    if ends[0] > ends[1]:
        raise ValueError("its ends are in the wrong order")
    return ends


def _split(command: str) -> str:
    shlex.split(command)  # raises ValueError, as for a quote without its end
    return command


Bounds = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(_in_order)]
ShellCommand = Annotated[str, AfterValidator(_split)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]*$")]

PASS_AT = re.compile(r"pass@(\d{1,9})")


class Document(BaseModel):
    """A JSON object in a file."""

    model_config = ConfigDict(extra="allow", frozen=True, validate_by_name=True, serialize_by_alias=True)

    @property
    def content(self) -> dict[str, Any]:
        """The object as in its file, with only the keys that were given."""
        return self.model_dump(exclude_unset=True)


class FormattedDocument(Document):
    """A file that states its format. `conf.parsing.parse_json` refuses another than FORMAT."""

    states_format: ClassVar[bool] = True

    @property
    def content(self) -> dict[str, Any]:
        return {"format": FORMAT, **super().content}


class MetricsRow(Document):
    """A row of metrics.jsonl: an update's metrics by name, finite or not."""

    __pydantic_extra__: dict[str, float | Whole | None]
    update: Count
    version: Count | None = None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All numbers of the row, `update` among them."""
        given = {**(self.model_extra or {}), "update": self.update, "version": self.version}
        return {name: value for name, value in given.items() if value is not None}


class SolvedRow(Document):
    """A row of solved.jsonl: the fraction of right samples by problem, of an update's batch or of its validation."""

    update: Count
    validation: bool = False
    right: dict[str, float]


class EventKind(StrEnum):
    """The kinds of events in a run. The value is the event's text, or the end of it (`Event.of`)."""

    DIED = "died"
    NOT_RESTARTED = "not restarted"
    RESTARTED = "restarted"
    LOW = "low"
    LOGGER_FAILED = "logger failed"
    COPY_FAILED = "copy failed"
    CHECKPOINT_REFUSED = "checkpoint refused"
    COLLAPSE = "collapse"
    ROLLED_BACK = "rolled back"
    MISMATCH = "mismatch"
    IMITATED = "warm start"
    CUT_OFF = "cut off"
    REWARD_FAILED = "reward function failed"
    WALL_ABSENT = "wall absent"
    FALLBACK = "falls back"
    CHECK_FAILED = "failed its check"


KIND = re.compile(f"(?:.*? )??({'|'.join(EventKind)})")


class Event(Document):
    """A row of events.jsonl. event: the kind after its subject, as in `rollout-0 died`."""

    update: Count
    event: Annotated[str, Field(pattern=f"^{KIND.pattern}$")]
    detail: str

    @classmethod
    def of(cls, kind: EventKind, subject: str = "", **known: Any) -> "Event":
        """Return an event of a kind. subject: the actor or thing concerned. known: update and detail."""
        return cls(event=f"{subject} {kind}".strip(), **known)

    @property
    def kind(self) -> EventKind:
        match = KIND.fullmatch(self.event)
        assert match  # as its pattern says
        return EventKind(match[1])


class PolicyScores(Document):
    """Scores of a policy on problems: eval-base.json, eval-warm.json, eval-final.json and eval-last.json, with the name
    of a benchmark in eval-base-NAME.json and so on, all in summary.json, and in evaluation.json.

    n: samples of each problem. problems: their number. ci95: 95 % interval of pass@1 over problems. intervals: those of
    the other scores by name. tokens, seconds: of all samples, incomplete rounds among them. round_seconds: seconds for
    one sample of each problem.
    """

    __pydantic_extra__: dict[str, Number | list[Number] | None]
    pass_at_1: Fraction = Field(alias="pass@1")
    n: Positive
    problems: Positive
    ci95: Bounds
    maj_at_n: Fraction | None = Field(default=None, alias="maj@n")
    intervals: dict[str, Bounds] = {}
    mean_length: Amount
    truncated: Fraction
    format: Fraction | None = None
    unverified: Fraction = 0.0
    tokens: Count = 0
    seconds: Amount = 0.0
    round_seconds: Amount = 0.0

    @property
    def pass_at(self) -> dict[int, float]:
        """pass@k by k."""
        named = ((PASS_AT.fullmatch(name), value) for name, value in self.content.items())
        return dict(
            sorted((int(match[1]), value) for match, value in named if match and isinstance(value, int | float))
        )

    @property
    def figures(self) -> dict[str, float]:
        """All numbers by name, except counts."""
        return {name: value for name, value in self.content.items() if isinstance(value, float)}


class Evaluations(Document):
    """The held-out evaluations of a run. warm: of version 0, if it is not the base. final: of its result. last: of the
    last policy, where that is another. benchmarks: those on `eval.benchmarks`, by name.
    """

    base: PolicyScores | None = None
    warm: PolicyScores | None = None
    final: PolicyScores | None = None
    last: PolicyScores | None = None
    benchmarks: dict[str, "Evaluations"] = {}


class Result(Document):
    """The policy that a run returns. update: its version. why: the reason, for a person. validation: its pass@1 on the
    validation problems, or their reward where that does not weigh answers.
    """

    update: Count
    why: str
    validation: Number | None = None


class LedgerRecord(Document):
    """ledger.json, and `ledger` in summary.json. start_s: the longest start. seconds: by actor and activity."""

    start_s: Amount = 0.0
    seconds: dict[str, dict[str, Amount]] = {}
    counts: dict[str, Whole] = {}


class EntropyChange(Document):
    """Entropy per token of the base model (before) and the policy (after), nats, and its relative change."""

    before: Number
    after: Number
    change: Number


class Plasticity(Document):
    """The policy's drift from the base model on the reference set: see docs/reference/metrics.md."""

    probe_entropy: EntropyChange | None = None
    kl_to_base: Number | None = None
    adapter_norm: dict[str, Number] = {}
    effective_rank: dict[str, Number] = {}
    rank: Positive | None = None


class RunSummary(Document):
    """summary.json: see docs/reference/metrics.md."""

    status: str
    reason: str = ""
    updates: Count = 0
    budget_s: Amount | None = None
    spent_s: Amount = 0.0
    cost: Number | None = None
    eval: Evaluations = Evaluations()
    result: Result | None = None
    plasticity: Plasticity | None = None
    ledger: LedgerRecord = LedgerRecord()
    events: list[Event] = []
    versions: dict[str, str] = {}
    hardware: str = ""


class RateLimitState(Document):
    """State of the learning rate's limit.

    recent: KL per squared rate of the last updates, or a bound where rounding hides it. noise: KL of samples that are
    not stale, which is rounding. last: rate of the last update.
    """

    recent: list[Number] = []
    noise: Number = 0.0
    last: Amount = 0.0


class GuardState(Document):
    """State of the collapse guard: the latest values of each signal."""

    values: dict[str, list[Number]] = {}


class ControlsState(Document):
    """State of `Controls`. skipped: updates without a step in a row. fruitless: groups in a row by what they lack."""

    rate_limit: RateLimitState = RateLimitState()
    guard: GuardState = GuardState()
    skipped: Count = 0
    fruitless: dict[str, Count] = {}


class CoordinatorState(Document):
    """coordinator.json of a checkpoint. next_unused, used: see `DataCursor`. noise: see `CheckAfterSync`. imitated,
    warm_start_over: losses of the steps of the warm start, and whether it has ended.
    """

    version: Count = 0
    next_unused: Count = 0
    used: list[Count] = []
    dropped: Count = 0
    dropped_tokens: Count = 0
    noise: Amount | None = None
    imitated: list[float] = []
    warm_start_over: bool = False
    controls: ControlsState = ControlsState()
    counts: dict[str, Whole] = {}


class LearnerRecord(FormattedDocument):
    """learner.json of a checkpoint. steps: number of optimizer steps; at version 0, of an unfinished warm start."""

    version: Count
    steps: Count
    model: str
    dtype: str
    rank: int
    alpha: float
    rslora: bool
    target_modules: list[str]
    seed: int
    steps_per_batch: int


class Planned(Document):
    """The plan's forecast for a run."""

    updates: Count
    update_s: Amount
    start_s: Amount


class Origin(Document):
    """origin.json: a run's command, commit, start, machine and plan."""

    command: ShellCommand = ""
    commit: str = ""
    started: str = ""
    machine: str = ""
    planned: Planned | None = None


class Spent(Document):
    """spent.json: seconds that all processes of a run have used."""

    spent_s: Amount


class SampleRow(Document):
    """A row of samples/*.jsonl: a verified response.

    version: the adapter's, None for the base model. status: the verdict's. failure: that of a user's reward function.
    extracted: the answer found in the response. partial: whether the reward lacks what only training has, see `Reward`.
    token_ids: of a right response that the warm start may learn. given: see `Sample`.
    """

    group: int | None = None
    problem: str
    prompt: str
    gold: str
    version: int | None = None
    response: str
    tokens: Count
    finish_reason: str
    reward: float | None = None
    status: str
    failure: str | None = None
    extracted: str | None = None
    partial: bool = False
    token_ids: list[Count] = []
    given: list[list[Count]] = []


class EvaluatedSample(SampleRow):
    """A row of an evaluation's samples. sample: its number within the problem."""

    sample: Count
    format: Number
    seconds: Amount


class FilteredProblem(Document):
    """A row of problems-left-out.jsonl."""

    reason: str


class PairedDifference(Document):
    """The adapter's pass@1 minus the base model's."""

    difference: Annotated[float, Field(ge=-1, le=1)]
    ci95: Bounds | None = None
    p: Fraction


class BenchmarkResult(Document):
    """Results on a benchmark. n: requested responses per problem. filtered_counts: rows by reason."""

    name: str
    source: str = ""
    problems: Count = 0
    filtered_counts: dict[str, Count] = {}
    n: Count = 0
    limit: Count | None = None
    base: PolicyScores
    adapter: PolicyScores | None = None
    paired: PairedDifference | None = None


class AdapterShape(Document):
    """What an evaluated adapter states. base: the model that it was made for."""

    base: str
    rank: Positive


class Protocol(Document):
    """Everything that a sample of an evaluation or its verdict depends on besides its problem.

    model_digest, adapter_digest: digests of the files of `model` and `adapter`. settings: further settings by key.
    """

    model: str
    model_digest: str | None = None
    adapter: str | None = None
    adapter_digest: str | None = None
    adapter_config: AdapterShape | None = None
    dtype: str
    temperature: Amount
    top_p: Fraction
    max_response_tokens: Positive
    seed: Count = 0
    settings: dict[str, Any] = {}


class EvaluationDocument(FormattedDocument):
    """evaluation.json of launch/evaluate.py."""

    status: str = ""
    protocol: Protocol
    benchmarks: list[BenchmarkResult] = []
    versions: dict[str, str] = {}


class SweepEntry(Document):
    """A run of a sweep, or the evaluation of a base model. name: its folder's. overrides: settings by dotted key.
    benchmarked: status of the run's evaluation on the sweep's benchmarks, None without any.
    """

    name: str
    overrides: dict[str, Any]
    status: str
    reason: str | None = None
    benchmarked: str | None = None


class SweepDocument(FormattedDocument):
    """sweep.json. axes: values by dotted key. benchmarks, n, pass_at, remark: see the settings of `sweep`. bases: the
    evaluations of the base models on the benchmarks, one per model.
    """

    name: str | None = None
    conf: str | None = None
    axes: dict[str, Any] = {}
    benchmarks: list[str] = []
    n: Positive | None = None
    pass_at: list[Positive] = []
    remark: str = ""
    runs: list[SweepEntry]
    bases: list[SweepEntry] = []

"""What the files of runs, sweeps and evaluations hold, as far as anything reads it; other keys may stand beside.

Checked wherever one of them is read (`conf.documents`), so that no reader meets a text where it needs a number.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from conf.documents import mapping

LARGEST = 2**53
"""Whole numbers up to it are numbers in JSON everywhere."""

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Amount = Annotated[float, Field(ge=0, le=1e300)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]
Scalar = str | int | float | bool | None
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]*$")]

open_ended = with_config(ConfigDict(extra="allow"))


def _pass_at(names: dict[str, Any]) -> dict[str, Any]:
    for name, value in names.items():
        if name.startswith("pass@") and not name.removeprefix("pass@").isdecimal():
            raise ValueError(f"{name} names no number of samples")
        if name.startswith("pass@") and not (value is None or isinstance(value, dict | float | int)):
            raise ValueError(f"{name} is no measure")
    return names


Heldout: Any = Annotated[
    mapping(
        "Heldout",
        {
            "pass@1": Share,
            "n": Annotated[int, Field(ge=1, le=LARGEST)],
            "problems": Annotated[int, Field(ge=1, le=LARGEST)],
            "ci95": Interval,
            "mean_length": Amount,
            "truncated": Share,
            "round_seconds": NotRequired[Amount],
        },
        others=Number | list[Number] | None,
    ),
    AfterValidator(_pass_at),
]
"""A held-out evaluation: eval-base.json, eval-final.json, and in summary.json."""


@open_ended
class Both(TypedDict):
    base: NotRequired[Heldout | None]
    final: NotRequired[Heldout | None]


@open_ended
class Ledger(TypedDict):
    seconds: NotRequired[dict[str, dict[str, Amount]]]
    counts: NotRequired[dict[str, Count]]


@open_ended
class Probe(TypedDict):
    before: Number
    after: Number
    change: Number


@open_ended
class Plasticity(TypedDict):
    probe_entropy: NotRequired[Probe | None]
    kl_to_base: NotRequired[Number | None]
    adapter_norm: NotRequired[dict[str, Number] | None]
    effective_rank: NotRequired[dict[str, Number] | None]
    rank: NotRequired[int | None]


@open_ended
class Event(TypedDict):
    update: Count
    event: str
    detail: str


@open_ended
class Summary(TypedDict):
    """summary.json."""

    status: str
    reason: NotRequired[str | None]
    updates: NotRequired[Count]
    spent_s: NotRequired[Amount]
    eval: NotRequired[Both]
    budget_s: NotRequired[Amount | None]
    cost: NotRequired[Number | None]
    ledger: NotRequired[Ledger | None]
    plasticity: NotRequired[Plasticity | None]
    best_update: NotRequired[int | None]
    versions: NotRequired[dict[str, str] | None]
    hardware: NotRequired[str | None]


@open_ended
class Planned(TypedDict):
    updates: Count
    update_s: Amount
    start_s: Amount


@open_ended
class Origin(TypedDict):
    """origin.json: where a run comes from, and what its plan expected."""

    command: NotRequired[str]
    commit: NotRequired[str]
    started: NotRequired[str]
    machine: NotRequired[str]
    planned: NotRequired[Planned | None]


Metrics = mapping("Metrics", {"update": Count}, others=float | None)
"""A row of metrics.jsonl."""


@open_ended
class Sample(TypedDict):
    """A row of samples/*.jsonl."""

    problem: str
    prompt: str
    gold: str
    response: str
    status: str
    tokens: Count
    finish_reason: str
    group: NotRequired[int]
    version: NotRequired[int | None]
    extracted: NotRequired[str | None]


@open_ended
class DrawnSample(Sample):
    """A row of an evaluation's samples."""

    sample: Count
    format: Number
    seconds: Amount


@open_ended
class LeftOutRow(TypedDict):
    """A row of problems-left-out.jsonl."""

    reason: str


@open_ended
class Spent(TypedDict):
    spent_s: Amount


@open_ended
class Measure(TypedDict):
    value: NotRequired[Number]
    ci95: NotRequired[Interval | None]


Policy: Any = Annotated[
    mapping(
        "Policy",
        {
            "n": NotRequired[Count],
            "mean_length": NotRequired[Amount],
            "truncated": NotRequired[Share],
            "format": NotRequired[Number | None],
            "unjudged": NotRequired[Share],
            "tokens": NotRequired[Count],
            "seconds": NotRequired[Amount],
        },
        others=Measure | None,
    ),
    AfterValidator(_pass_at),
]
"""Scores of a policy on a benchmark."""


@open_ended
class Paired(TypedDict):
    difference: Number
    ci95: Interval | None
    p: Share


@open_ended
class BenchmarkResult(TypedDict):
    name: str
    source: NotRequired[str]
    problems: NotRequired[Count]
    n: NotRequired[Count]
    dropped: NotRequired[dict[str, Count]]
    base: NotRequired[Policy | None]
    adapter: NotRequired[Policy | None]
    paired: NotRequired[Paired | None]


@open_ended
class Protocol(TypedDict):
    model: str
    adapter: NotRequired[str | None]


@open_ended
class Evaluated(TypedDict):
    """evaluation.json of launch/evaluate.py."""

    protocol: Protocol
    benchmarks: NotRequired[list[BenchmarkResult]]
    versions: NotRequired[dict[str, str]]


@open_ended
class Entry(TypedDict):
    cell: str
    overrides: dict[str, Scalar | list[Scalar]]
    run: NotRequired[str]
    status: str
    reason: NotRequired[str | None]


@open_ended
class Plan(TypedDict):
    """sweep.json."""

    cells: list[Entry]
    name: NotRequired[str | None]


@open_ended
class State(TypedDict):
    """coordinator.json of a checkpoint."""

    validation: float | None


class RemoteFile(TypedDict):
    """place: folder of the `put` that has written it."""

    place: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    bytes: Count
    blake2b: Digest


class RemoteState(TypedDict):
    """remote.json: see `actors.storage.remote`."""

    identity: Digest | None
    files: dict[str, RemoteFile]
    links: dict[Literal["latest", "best"], str]
    others: list[Annotated[str, Field(pattern=r"^[0-9a-f]{16}/")]]

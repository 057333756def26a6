"""What base models and trained policies scored on the benchmarks of a sweep."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import inf
from statistics import fmean
from typing import Any, TypeVar

from actors.evaluation.folder import OF_ADAPTER
from actors.evaluation.statistics import Mean, over_problems, pass_at
from actors.messages import Status
from actors.storage.documents import EvaluatedSample, by_k
from actors.storage.files import read_rows
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.schema.reward import formula, weighs_answers
from launch.reporting.comparison import Repeats, axis_name, by_settings
from launch.reporting.exams.paper import model, short_name
from launch.reporting.health import LATE
from launch.reporting.history import MODEL, RANK, Run, Sweep
from launch.reporting.seeds import fraction
from launch.reporting.wording import compact

P = TypeVar("P", bound=Hashable)
"""Type of a problem's key."""

Exam = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Pass@k of one policy by benchmark, k and problem, where every problem has all its samples."""

EVERYWHERE = ("temperature", "top_p", "max_response_tokens", "seed")
"""Fields of a protocol that all exams of a sweep share. Those of one model share all but the adapter's."""


@dataclass(frozen=True)
class SettingResults(Repeats):
    """Runs of a model that only differ in the seed, with the exams of their results by seed."""

    exams: Mapping[int, Exam]

    @property
    def label(self) -> str:
        known = {key: value for key, value in self.settings.items() if key != MODEL} or {RANK: self.rank}
        return ", ".join(f"{axis_name(key)} {compact(value)}" for key, value in known.items())

    @property
    def rank(self) -> int:
        return int(self.runs[0].settings.get(RANK) or 0)

    @property
    def validations(self) -> list[float | None]:
        """Score of each run's result on the selection problems, None without any."""
        return [run.summary.result.validation for run in self.runs if run.summary.result]


@dataclass(frozen=True)
class ModelResults:
    """The results of a model. name: short, or its path if another has that too. kind: the paper's, empty if unknown."""

    name: str
    kind: str
    base: Exam
    trained: tuple[SettingResults, ...]

    @cached_property
    def chosen(self) -> SettingResults | None:
        """The setting with the best mean on the selection problems, the first of equals; None if a run has none, or if
        the runs' scores are of different rewards.

        The exams have no part in the choice.
        """
        means = [[value for value in each.validations if value is not None] for each in self.trained]
        runs = (run for each in self.trained for run in each.runs)
        scores = {None if weighs_answers(run.config) else formula(run.config) for run in runs}
        if not any(means) or any(None in each.validations for each in self.trained) or len(scores) > 1:
            return None
        return max(zip(self.trained, means, strict=True), key=lambda pair: fmean(pair[1]) if pair[1] else -inf)[0]

    @property
    def shown(self) -> tuple[SettingResults, ...]:
        """The chosen setting, or all of them."""
        return (self.chosen,) if self.chosen else self.trained

    def entropy_changes(self, rank: int) -> list[float]:
        """Return the changes of entropy at a rank, one per seed: the mean over the settings of this rank."""
        by_seed: dict[int, list[float]] = {}
        for run in (run for each in self.trained if each.rank == rank for run in each.runs):
            if (change := entropy_change(run)) is not None:
                by_seed.setdefault(run.seed, []).append(change)
        return [fmean(of_seed) for of_seed in by_seed.values()]


def read_results(sweep: Sweep) -> list[ModelResults]:
    """Read the exams of a sweep by model; none without benchmarks. Raises BadInput if they cannot be compared."""
    if not sweep.benchmarks:
        return []
    check(sweep)
    found: dict[str, list[SettingResults]] = {}
    for repeats in by_settings(sweep):
        exams = {run.seed: exam for run in repeats.runs if (exam := read_exam(run, "adapter", sweep))}
        settings = found.setdefault(str(repeats.runs[0].settings.get(MODEL)), [])
        settings.append(SettingResults(repeats.settings, repeats.runs, exams))
    results, short = [], Counter(map(short_name, found))
    for path, trained in found.items():
        base: Exam = {}
        for run in (*sweep.bases, *(run for each in trained for run in each.runs)):
            if run.settings.get(MODEL) == path and len(base) < len(sweep.benchmarks):
                base = {**read_exam(run, "base", sweep), **base}
        base = on_shared_problems(base, [exam for each in trained for exam in each.exams.values()])
        name = short_name(path) if short[short_name(path)] == 1 else path
        results.append(ModelResults(name, model(path).get("kind", ""), base, tuple(trained)))
    return results


def check(sweep: Sweep) -> None:
    """Raise BadInput if the exams differ in samples, benchmarks or protocol, or the runs of a model in the problems
    that chose their result.
    """
    known: dict[tuple[str, ...], tuple[Any, str]] = {("n",): (sweep.n, "sweep.json")}

    def same(value: Any, run: Run, *thing: str) -> None:
        other, first = known.setdefault(thing, (value, run.name))
        if other != value:
            raise BadInput(
                f"{run.folder}: {thing[0]}={value}, but {thing[0]}={other} in {first}, so that they are not comparable:"
                " make one of them anew with the settings of the other, or move it away"
            )

    for run in (*sweep.bases, *sweep.runs):
        model = str(run.settings.get(MODEL))
        if run.begun and (chose := RunRecord(run.folder).selection()):
            digest = blake2b(repr(sorted(chose)).encode(), digest_size=4).hexdigest()
            same(f"{len(chose)} problems ({digest})", run, "selection", model)
        given = run.evaluation.benchmarks if run.evaluation else ()
        results = {each.name: each for each in given if each.name in sweep.benchmarks}
        missing = [name for name in sweep.benchmarks if name not in results]
        if missing and run.exam == "completed":
            raise BadInput(f"{run.folder}: its exam is completed but lacks {', '.join(missing)}: evaluate it anew")
        for name, result in results.items():
            same(result.n, run, "n")
            same(result.limit, run, "limit", name)
        if run.evaluation and results:
            protocol = run.evaluation.protocol
            every = {**protocol.content, **protocol.settings}
            for key in EVERYWHERE:
                same(getattr(protocol, key), run, key)
            for key in sorted(every.keys() - {"settings", *OF_ADAPTER, *EVERYWHERE}):
                same(every[key], run, key, model)


def read_exam(run: Run, policy: str, sweep: Sweep) -> Exam:
    """Return pass@k of a policy, `base` or `adapter`, on the benchmarks of which all its samples are there."""
    exam = {}
    for benchmark in run.evaluation.benchmarks if run.evaluation else ():
        if benchmark.name in sweep.benchmarks:
            file = run.folder / "evaluation" / "samples" / f"{benchmark.name}-{policy}.jsonl"
            rows = {(row.problem, row.sample): row.status for row in read_rows(file, EvaluatedSample)}
            rows = {key: status for key, status in rows.items() if key[1] < benchmark.n}
            if len(rows) == benchmark.n * benchmark.problems:
                counts = dict.fromkeys((problem for problem, _ in rows), 0)
                for (problem, _), status in rows.items():
                    counts[problem] += status == Status.CORRECT
                values = by_k(pass_at([*counts.values()], benchmark.n, sweep.pass_at))
                exam[benchmark.name] = {k: dict(zip(counts, shares, strict=True)) for k, shares in values.items()}
    return exam


def on_shared_problems(base: Exam, exams: Sequence[Exam]) -> Exam:
    """Return a base model's exam on the problems of all the exams: theirs lack those that chose the policy."""
    found = {}
    for name, shares in base.items():
        others = [exam[name][1].keys() for exam in exams if name in exam]
        if common := set(shares[1]).intersection(*others):
            found[name] = {k: {key: of[key] for key in of if key in common} for k, of in shares.items()}
    return found


def level(exams: Iterable[Exam], benchmark: str, k: int) -> Mean | None:
    """Return the mean of pass@k over exams, one per seed, with its interval over seeds or over problems: the wider one,
    since few seeds may agree by chance.
    """
    own = [exam[benchmark][k] for exam in exams if benchmark in exam]
    if not own:
        return None
    over_seeds = fraction([fmean(each.values()) for each in own], [])
    found = over_seeds, over_problems(mean_by_problem(own).values())
    return max(found, key=lambda mean: mean.interval[1] - mean.interval[0] if mean.interval else 0.0)


def mean_by_problem(shares: Iterable[Mapping[P, float]]) -> dict[P, float]:
    """Return the means over several mappings of the problems that are in all of them."""
    known = list(shares)
    common = [problem for problem in known[0] if all(problem in each for each in known)]
    return {problem: fmean(each[problem] for each in known) for problem in common}


def entropy_change(run: Run) -> float | None:
    """Return the relative change of a run's mean token entropy on the policy's own responses: the mean of its last
    tenth of updates against that of its first tenth; None with fewer than two updates.
    """
    values = [row.metrics["policy/entropy"] for row in run.rows if row.update and "policy/entropy" in row.metrics]
    window = max(int(len(values) * LATE), 1)
    first = fmean(values[:window]) if len(values) > 1 else 0.0
    return fmean(values[-window:]) / first - 1 if first else None

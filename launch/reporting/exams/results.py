"""What base models and trained policies scored on the benchmarks of a sweep."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TypeVar

from actors.evaluation.statistics import FEWEST, Mean, over_problems, pass_at
from actors.messages import Status
from actors.storage.documents import EvaluatedSample, PolicyScores
from actors.storage.files import read_rows
from launch.reporting.comparison import Repeats, axis_name, by_settings
from launch.reporting.exams.comparability import check
from launch.reporting.exams.paper import model, short_name
from launch.reporting.health import LATE
from launch.reporting.history import MODEL, RANK, Run, Sweep
from launch.reporting.seeds import fraction
from launch.reporting.wording import compact

ENTROPY = "policy/entropy"

P = TypeVar("P", bound=Hashable)
"""Type of a problem's key."""


@dataclass(frozen=True)
class Scores:
    """Scores of a policy on a benchmark. correct: number of correct samples by problem; empty without the samples."""

    known: PolicyScores
    correct: Mapping[str, int]

    def shares(self, k: int = 1) -> dict[str, float]:
        """Return pass@k by problem."""
        values = pass_at([*self.correct.values()], self.known.n, [k])[f"pass@{k}"]
        return dict(zip(self.correct, values, strict=True))

    def level(self, k: int) -> Mean | None:
        """Return pass@k with its interval over problems; None if the samples are gone and no file has it."""
        if self.correct:
            return over_problems(self.shares(k).values())
        bounds = self.known.ci95 if k == 1 else self.known.intervals.get(f"pass@{k}")
        interval = (bounds[0], bounds[1]) if bounds and self.known.problems >= FEWEST else None
        return Mean(self.known.pass_at[k], interval) if k in self.known.pass_at else None


Exam = Mapping[str, Scores]
"""Complete scores of one policy by benchmark."""


@dataclass(frozen=True)
class Trained:
    """The trained policies of a model that only differ in the seed. exams: by run, as far as there are any."""

    repeats: Repeats
    exams: Mapping[str, Exam]

    @property
    def label(self) -> str:
        known = {key: value for key, value in self.repeats.settings.items() if key != MODEL} or {RANK: self.rank}
        return ", ".join(f"{axis_name(key)} {compact(value)}" for key, value in known.items())

    @property
    def rank(self) -> int:
        return int(self.repeats.runs[0].settings.get(RANK) or 0)

    @property
    def validation(self) -> float | None:
        """Mean pass@1 on the selection problems over the runs that have a result; None without one."""
        values = [run.summary.result.validation for run in self.repeats.runs if run.summary.result]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None

    @property
    def entropy_changes(self) -> list[float]:
        """Relative change of the mean token entropy in each run: see `entropy_change`."""
        return [change for run in self.repeats.runs if (change := entropy_change(run)) is not None]

    def level(self, benchmark: str, k: int) -> Mean | None:
        """Return the mean of pass@k over seeds, with its interval over them, or over problems if they do not differ."""
        own = [exam[benchmark] for exam in self.exams.values() if benchmark in exam]
        levels = [level for scores in own if (level := scores.level(k))]
        if not levels:
            return None
        shares = [scores.shares(k) for scores in own if scores.correct]
        mean = fraction([level.value for level in levels], [*mean_by_problem(shares).values()])
        return mean if mean.interval or shares else Mean(mean.value, levels[0].interval)


@dataclass(frozen=True)
class ModelResults:
    """The results of a model. base: the base model's exam. trained: in the order of the settings."""

    path: str
    base: Exam
    trained: tuple[Trained, ...]

    @property
    def name(self) -> str:
        return short_name(self.path)

    @property
    def kind(self) -> str:
        """The paper's kind of model, empty if unknown."""
        return str(model(self.path).get("kind", ""))

    @cached_property
    def chosen(self) -> Trained | None:
        """The setting with the best mean on the selection problems, the first of equals; None without any.

        The exams have no part in the choice.
        """
        known = [each for each in self.trained if any(run.summary.result for run in each.repeats.runs)]
        values = [each.validation for each in known]
        best = max((value for value in values if value is not None), default=None)
        return None if best is None or None in values else known[values.index(best)]

    @property
    def shown(self) -> tuple[Trained, ...]:
        """The chosen setting, or all of them."""
        return (self.chosen,) if self.chosen else self.trained


def read_results(sweep: Sweep) -> list[ModelResults]:
    """Read the exams of a sweep by model; none without benchmarks. Raises BadInput if they cannot be compared."""
    if not sweep.benchmarks:
        return []
    check(sweep)
    found: dict[str, list[Trained]] = {}
    for repeats in by_settings(sweep):
        exams = {run.name: read_exam(run, "adapter", sweep) for run in repeats.runs}
        path = str(repeats.runs[0].settings.get(MODEL))
        found.setdefault(path, []).append(Trained(repeats, exams))
    results = []
    for path, trained in found.items():
        base: dict[str, Scores] = {}
        for run in [*sweep.bases, *(run for each in trained for run in each.repeats.runs)]:
            if run.settings.get(MODEL) == path and not base.keys() >= set(sweep.benchmarks):
                base = {**read_exam(run, "base", sweep), **base}
        results.append(ModelResults(path, base, tuple(trained)))
    return results


def read_exam(run: Run, policy: str, sweep: Sweep) -> Exam:
    """Return the complete scores of a policy, `base` or `adapter`, on the sweep's benchmarks."""
    exam = {}
    for benchmark in run.evaluation.benchmarks if run.evaluation else ():
        known: PolicyScores | None = getattr(benchmark, policy)
        if benchmark.name in sweep.benchmarks and known and known.n == benchmark.n:
            file = run.folder / "evaluation" / "samples" / f"{benchmark.name}-{policy}.jsonl"
            rows = read_rows(file, EvaluatedSample)
            marks = {(row.problem, row.sample): row.status == Status.CORRECT for row in rows if row.sample < known.n}
            correct = dict.fromkeys((problem for problem, _ in marks), 0)
            for (problem, _), solved in marks.items():
                correct[problem] += solved
            exam[benchmark.name] = Scores(known, correct if len(marks) == known.n * known.problems else {})
    return exam


def mean_by_problem(shares: Iterable[Mapping[P, float]]) -> dict[P, float]:
    """Return the means over several mappings of the problems that are in all of them."""
    known = list(shares)
    common = [problem for problem in known[0] if all(problem in each for each in known)] if known else []
    return {problem: fmean(each[problem] for each in known) for problem in common}


def entropy_change(run: Run) -> float | None:
    """Return the relative change of a run's mean token entropy on the policy's own responses: the mean of its last
    tenth of updates against that of its first tenth; None with fewer than two updates.
    """
    values = [row.metrics[ENTROPY] for row in run.rows if row.update and ENTROPY in row.metrics]
    window = max(int(len(values) * LATE), 1)
    if len(values) < 2 or not (first := fmean(values[:window])):
        return None
    return fmean(values[-window:]) / first - 1

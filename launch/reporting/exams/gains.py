"""What training gave on the benchmarks of a sweep: differences of pass@1 over several problems, models and seeds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from actors.evaluation.statistics import Difference, paired_difference
from launch.reporting.exams.results import Exam, ModelResults, Trained, mean_by_problem
from launch.reporting.seeds import pooled_difference, pooled_variance
from launch.reporting.wording import many

Policies = Sequence[Mapping[tuple[str, ...], float]]
"""Pass@1 by model, benchmark and problem; one mapping per seed."""


@dataclass(frozen=True)
class Gain:
    """A difference of pass@1. models: names. problems: their number. seeds: how many the interval is over; 0 if it is
    over problems.
    """

    difference: Difference
    models: tuple[str, ...]
    problems: int
    seeds: int

    @property
    def basis(self) -> str:
        return f"{many(self.seeds, 'seed')}, " * bool(self.seeds) + many(self.problems, "problem")


def gain(
    models: Sequence[ModelResults], family: int = 1, only: Sequence[str] = (), setting: str | None = None
) -> Gain | None:
    """Return what training gave in pass@1.

    family: as in `paired_difference`. only: these benchmarks, all when empty. setting: the label of one; None for that
    which the selection problems chose, or all without any.
    """
    pairs = [(model, each) for model in models for each in model.trained]
    own = [pair for pair in pairs if (pair[1].label == setting if setting else pair[1] in pair[0].shown)]
    shown, others = trained_policies(own, only), [pair for pair in pairs if pair not in own]
    ranks = {each.rank for _, each in others}
    rest = [trained_policies([pair for pair in others if pair[1].rank == rank], only) for rank in sorted(ranks)]
    return compared(_base_policies(models, only), shown, rest, family)


def gains(results: Sequence[ModelResults]) -> dict[str, Difference]:
    """Return what training gave each model on all benchmarks, by name. The intervals hold for all models together."""
    return {each.name: found.difference for each in results if (found := gain([each], len(results)))}


def compared(low: Policies, high: Policies, others: Sequence[Policies] = (), family: int = 1) -> Gain | None:
    """Return mean pass@1 of `high` minus that of `low` over the problems that they share; None without such problems.

    Over seeds, with the variance that `low`, `high` and `others` have between seeds, or paired by problem if that is
    zero. A base model counts as one more seed.
    """
    common = sorted(set.intersection(*map(set, (*low, *high)))) if low and high else []
    if not common:
        return None
    groups = [[each for each in of if each.keys() >= {*common}] for of in (low, high, *others)]
    values = [[fmean(each[problem] for problem in common) for each in of] for of in groups]
    names = tuple(dict.fromkeys(model for model, *_ in common))
    variance, freedom = pooled_variance(values)
    if variance:
        difference = pooled_difference(values[0], values[1], variance, freedom, family)
        return Gain(difference, names, len(common), len(high))
    before, after = (
        {place: means[problem] for place, problem in enumerate(common)} for means in map(mean_by_problem, (low, high))
    )
    found = paired_difference(before, after, family)
    return Gain(found, names, len(common), 0) if found else None


def trained_policies(pairs: Iterable[tuple[ModelResults, Trained]], only: Sequence[str] = ()) -> Policies:
    """Return the pass@1 of trained policies, those of all models together for each seed."""
    found: dict[tuple[int, int], dict[tuple[str, ...], float]] = {}
    times = Counter[tuple[str, int]]()
    for model, trained in pairs:
        for run in trained.repeats.runs:
            if shares := _by_problem(model, trained.exams[run.name], only):
                found.setdefault((run.seed, times[model.path, run.seed]), {}).update(shares)
                times[model.path, run.seed] += 1
    return [*found.values()]


def _base_policies(models: Iterable[ModelResults], only: Sequence[str]) -> Policies:
    found: dict[tuple[str, ...], float] = {}
    for model in models:
        found |= _by_problem(model, model.base, only)
    return [found] if found else []


def _by_problem(model: ModelResults, exam: Exam, only: Sequence[str]) -> dict[tuple[str, ...], float]:
    return {
        (model.name, benchmark, problem): share
        for benchmark, scores in exam.items()
        if scores.correct and (benchmark in only or not only)
        for problem, share in scores.shares().items()
    }

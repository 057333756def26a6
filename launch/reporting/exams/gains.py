"""What training gave on the benchmarks of a sweep: differences of pass@1 over several problems, models and seeds."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from operator import attrgetter
from statistics import fmean

from actors.evaluation.statistics import Difference, paired_difference
from launch.reporting.exams.results import ModelResults, SettingResults, mean_by_problem
from launch.reporting.seeds import welch_difference
from launch.reporting.wording import many

Models = Sequence[ModelResults]

Policies = Sequence[Mapping[tuple[str, str, str], float]]
"""Pass@1 by model, benchmark and problem; one mapping per seed."""

Pick = Callable[[ModelResults], Collection[SettingResults]]
"""Chooses trained policies of a model."""

Found = tuple[Difference, str, int]
"""A difference of pass@1, its basis in words, and the number of problems that its interval is over: 0 if over seeds."""


def gain(models: Models, family: int = 1, only: Sequence[str] = (), pick: Pick = attrgetter("shown")) -> Found | None:
    """Return what training gave in pass@1. family: as in `paired_difference`. only: these benchmarks, or all."""
    base = {
        (model.name, benchmark, problem): share
        for model in models
        for benchmark, by_k in model.base.items()
        for problem, share in by_k[1].items()
    }
    samples = max((k for model in models for by_k in model.base.values() for k in by_k), default=1)
    return compared([base], policies(models, pick, only), family, samples)


def policies(models: Models, pick: Pick, only: Sequence[str] = ()) -> Policies:
    """Return pass@1 of trained policies for each seed, all models together; several of a model count as their mean."""
    found: dict[int, dict[tuple[str, str, str], list[float]]] = {}
    for model in models:
        for trained in pick(model):
            for seed, exam in trained.exams.items():
                of_seed = found.setdefault(seed, {})
                for benchmark in exam.keys() & (only or exam.keys()):
                    for problem, share in exam[benchmark][1].items():
                        of_seed.setdefault((model.name, benchmark, problem), []).append(share)
    return [{key: fmean(shares) for key, shares in each.items()} for each in found.values() if each]


def alike(models: Models, key: Callable[[SettingResults], Hashable], value: Hashable) -> Policies:
    return policies(models, lambda model: [each for each in model.trained if key(each) == value])


def ranks(models: Models) -> list[int]:
    """Return the ranks of which there are exams."""
    return sorted({each.rank for model in models for each in model.trained if each.exams})


def compared(low: Policies, high: Policies, family: int, samples: int = 0) -> Found | None:
    """Return mean pass@1 of `high` minus that of `low` over the problems that they share; None without such problems.

    Over seeds, or paired by problem if several seeds do not differ. samples: of each problem by a base model, if `low`
    is one: its value varies from one evaluation to another as far as these leave its chances open (Jeffreys' estimate).
    """
    common = sorted(set.intersection(*map(set, (*low, *high)))) if low and high else []
    if not common:
        return None
    first, last = ([fmean(of[key] for key in common) for of in policies] for policies in (low, high))
    chances = [(low[0][key] * samples + 0.5) / (samples + 1) for key in common] if samples else []
    noise = sum(chance * (1 - chance) / samples for chance in chances) / len(common) ** 2
    found, alike = welch_difference(first, last, family, noise), samples or len(low) == len(high)
    names = " and ".join(dict.fromkeys(name for name, *_ in common))
    basis = f"{many(len(common), 'problem')} of {names}"
    if found.interval or len(high) == 1 or (len(low) == 1 and not samples):
        return found, f"{many(len(high), 'seed')}{'' if alike else f' against {len(low)}'}, {basis}", 0
    before, after = ({" ".join(key): of[key] for key in common} for of in map(mean_by_problem, (low, high)))
    paired = paired_difference(before, after, family)
    return (paired, basis, len(common)) if paired else None

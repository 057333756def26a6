"""What base models and trained policies scored on the benchmarks of a sweep, and what training gave."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from math import inf
from statistics import fmean
from typing import Any

from microbudget_rl.actors.evaluation.folder import OF_ADAPTER
from microbudget_rl.actors.evaluation.statistics import Difference, Mean, means, over_problems, pass_at
from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.results import Results
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema.reward import formula, weighs_answers
from microbudget_rl.launch.reporting.comparison import (
    Repeats,
    axis_name,
    by_settings,
    difference,
    fraction,
    mean_by_problem,
)
from microbudget_rl.launch.reporting.health import LATE
from microbudget_rl.launch.reporting.history import MODEL, RANK, Sweep
from microbudget_rl.launch.reporting.paper import model, short_name
from microbudget_rl.launch.reporting.wording import compact, many

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Pass@k of one policy by benchmark, k and problem, where every problem has all its samples."""

Gain = tuple[Difference, str, int]
"""A difference of pass@1, its basis in words, and the number of problems that its interval is over: 0 if over seeds."""

EVERYWHERE = ("temperature", "top_p", "max_response_tokens", "seed")
"""Fields of a protocol that all evaluations of a sweep share. Those of one model share all but the adapter's."""


@dataclass(frozen=True)
class SettingResults(Repeats):
    """Runs of a model that only differ in the seed, with the scores of their results by seed."""

    scores: Mapping[int, Scores]

    @property
    def label(self) -> str:
        known = {key: value for key, value in self.settings.items() if key != MODEL} or {RANK: self.rank}
        return ", ".join(f"{axis_name(key)} {compact(value)}" for key, value in known.items())

    @property
    def rank(self) -> int:
        return int(self.runs[0].settings.get(RANK) or 0)

    @property
    def validations(self) -> list[float | None]:
        """Score of each run's result on the validation problems, None without any."""
        return [run.summary.result.validation for run in self.runs if run.summary.result]


@dataclass(frozen=True)
class ModelResults:
    """The results of a model. name: short, or its path if another has that too. kind: the paper's, empty if unknown."""

    name: str
    kind: str
    base: Scores
    trained: tuple[SettingResults, ...]

    @cached_property
    def chosen(self) -> SettingResults | None:
        """The setting with the best mean on validation problems, never benchmarks; None without comparable scores."""
        known = [[value for value in each.validations if value is not None] for each in self.trained]
        runs = (run for each in self.trained for run in each.runs)
        rewards = {None if weighs_answers(run.config) else formula(run.config) for run in runs}
        if not any(known) or any(None in each.validations for each in self.trained) or len(rewards) > 1:
            return None
        return max(zip(self.trained, known, strict=True), key=lambda pair: fmean(pair[1]) if pair[1] else -inf)[0]

    @property
    def shown(self) -> tuple[SettingResults, ...]:
        """The chosen setting, or all of them."""
        return (self.chosen,) if self.chosen else self.trained

    def entropy_changes(self, rank: int) -> list[float]:
        """Return the changes of entropy at a rank, one per seed: the mean over the settings of this rank."""
        runs = [run for each in self.trained if each.rank == rank for run in each.runs]
        return [*means((run.seed, change) for run in runs if (change := entropy_change(run)) is not None).values()]


Models = Sequence[ModelResults]


def read_results(sweep: Sweep) -> list[ModelResults]:
    """Read the scores of a sweep by model; none without benchmarks. Raises BadInput if they cannot be compared."""
    if not sweep.benchmarks:
        return []
    check(sweep)
    by_model: dict[str, list[SettingResults]] = {}
    for repeats in by_settings(sweep):
        scores = {run.seed: run_scores for run in repeats.runs if (run_scores := read_scores(run, "adapter", sweep))}
        settings = by_model.setdefault(str(repeats.runs[0].settings.get(MODEL)), [])
        settings.append(SettingResults(repeats.settings, repeats.runs, scores))
    results, short = [], Counter(map(short_name, by_model))
    for path, trained in by_model.items():
        base: Scores = {}
        for run in (*sweep.bases, *(run for each in trained for run in each.runs)):
            if run.settings.get(MODEL) == path and len(base) < len(sweep.benchmarks):
                base = {**read_scores(run, "base", sweep), **base}
        base = on_shared_problems(base, [run_scores for each in trained for run_scores in each.scores.values()])
        name = short_name(path) if short[short_name(path)] == 1 else path
        results.append(ModelResults(name, model(path).get("kind", ""), base, tuple(trained)))
    return results


def check(sweep: Sweep) -> None:
    """Raise BadInput if evaluations differ in what they depend on, or a model's runs in the problems that chose."""
    known: dict[tuple[str, ...], tuple[Any, str]] = {("n",): (sweep.n, "sweep.json")}

    def same(value: Any, run: Results, *thing: str) -> None:
        other, first = known.setdefault(thing, (value, run.name))
        if other != value:
            raise BadInput(
                f"{run.folder}: {thing[0]}={value}, but {thing[0]}={other} in {first}, so that they are not comparable:"
                " repeat one of them with the settings of the other, or move it away"
            )

    for run in (*sweep.bases, *sweep.runs):
        model = str(run.settings.get(MODEL))
        if run.begun and (chose := run.record.selection()):
            digest = blake2b(repr(sorted(chose)).encode(), digest_size=4).hexdigest()
            same(f"{len(chose)} problems ({digest})", run, "validation", model)
        given = run.evaluation.benchmarks if run.evaluation else ()
        results = {each.name: each for each in given if each.name in sweep.benchmarks}
        missing = [name for name in sweep.benchmarks if name not in results]
        if missing and run.benchmarked == "completed":
            raise BadInput(f"{run.folder}: its evaluation is completed but lacks {', '.join(missing)}: repeat it")
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


def read_scores(run: Results, policy: str, sweep: Sweep) -> Scores:
    """Return pass@k of a policy, `base` or `adapter`, on the benchmarks of which all its samples are there."""
    scores = {}
    for benchmark in run.evaluation.benchmarks if run.evaluation else ():
        if benchmark.name in sweep.benchmarks:
            known = run.evaluated(policy, benchmark.name)
            rows = {(row.problem, row.sample): row.status for row in known if row.sample < benchmark.n}
            if len(rows) == benchmark.n * benchmark.problems:
                counts = dict.fromkeys((problem for problem, _ in rows), 0)
                for (problem, _), status in rows.items():
                    counts[problem] += status == Status.CORRECT
                values = pass_at([*counts.values()], benchmark.n, sweep.pass_at)
                scores[benchmark.name] = {k: dict(zip(counts, shares, strict=True)) for k, shares in values.items()}
    return scores


def on_shared_problems(base: Scores, trained: Sequence[Scores]) -> Scores:
    """Return a base model's scores on the problems of all its policies, which lack those that chose the policy."""
    common_shares = {}
    for name, shares in base.items():
        others = [scores[name][1].keys() for scores in trained if name in scores]
        if common := set(shares[1]).intersection(*others):
            common_shares[name] = {
                k: {key: share[key] for key in share if key in common} for k, share in shares.items()
            }
    return common_shares


def level(scores: Iterable[Scores], benchmark: str, k: int) -> Mean | None:
    """Return mean pass@k, with the wider of its intervals over seeds and problems: few seeds may agree by chance."""
    shares = [each[benchmark][k] for each in scores if benchmark in each]
    if not shares:
        return None
    over_seeds = fraction([fmean(each.values()) for each in shares], [])
    result = over_seeds, over_problems(mean_by_problem(shares).values())
    return max(result, key=lambda mean: mean.interval[1] - mean.interval[0] if mean.interval else 0.0)


def entropy_change(run: Results) -> float | None:
    """Return the relative change of a run's mean token entropy on the policy's own responses, from the first tenth of
    its updates to the last; None with fewer than two updates.
    """
    values = [row.metrics["policy/entropy"] for row in run.rows if row.update and "policy/entropy" in row.metrics]
    window = max(int(len(values) * LATE), 1)
    first = fmean(values[:window]) if len(values) > 1 else 0.0
    return fmean(values[-window:]) / first - 1 if first else None


def gain(model: ModelResults, trained: Collection[SettingResults], family: int = 1) -> Gain | None:
    """Return the mean pass@1 of trained policies minus the base model's over the problems that they share; None without
    such problems.

    Policies of one seed count as their mean. family: as in `welch_difference`. The base model's value varies from one
    evaluation to another as far as its samples leave its chances open (Jeffreys' estimate).
    """
    base = {(benchmark, key): share for benchmark, by_k in model.base.items() for key, share in by_k[1].items()}
    samples = max((k for by_k in model.base.values() for k in by_k), default=1)
    by_seed = defaultdict[int, list[tuple[tuple[str, str], float]]](list)
    for seed, scores in chain.from_iterable(setting.scores.items() for setting in trained):
        for benchmark, by_k in scores.items():
            by_seed[seed] += (((benchmark, key), share) for key, share in by_k[1].items())
    policies = [*map(means, by_seed.values())]
    trained_mean = mean_by_problem(policies) if policies else {}
    common = sorted(base.keys() & trained_mean.keys())
    if not common:
        return None
    first, last = ([fmean(policy[key] for key in common) for policy in side] for side in ([base], policies))
    chances = [(base[key] * samples + 0.5) / (samples + 1) for key in common]
    noise = sum(chance * (1 - chance) / samples for chance in chances) / len(common) ** 2
    before, after = ({" ".join(key): side[key] for key in common} for side in (base, trained_mean))
    change, paired = difference(first, last, before, after, family, noise)
    basis = f"{many(len(common), 'problem')} of {model.name}"
    if paired:
        return change, basis, len(common)
    return change, f"{many(len(policies), 'seed')}, {basis}", 0

"""The tables of a run's report, the samples in it, and the results of launch/evaluate.py for its own table too."""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from microbudget_rl.actors.evaluation.statistics import Mean
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.results import Results
from microbudget_rl.actors.storage.documents import EvaluationDocument, Plasticity, PolicyScores, SampleRow
from microbudget_rl.conf.schema.reward import formula, weighs_answers
from microbudget_rl.launch.reporting.run_conclusion import (
    Effect,
    changes,
    effect,
    mean_of,
    reinforcement,
    reward_effect,
)
from microbudget_rl.launch.reporting.wording import (
    WORDS,
    compact,
    count,
    decimal,
    level,
    many,
    percent,
    points,
    precise,
    span,
    time,
)

SHOWN_PAIRS = 6

INTERVAL = "95 % interval"

SPECIAL = re.compile(r"(\s*<\|?\w+\|?>)+\s*$")
"""Pattern of the end of a turn in a chat template."""

OUTCOMES = {
    "worse": "right before, wrong after",
    "better": "wrong before, right after",
    "wrong": "wrong both times",
    "right": "right both times",
}
"""Name of an outcome on the command line → the outcome."""

POLICIES = ("base", "adapter")

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of a report. The first column names the rows. links: text in the first column → address."""

    caption: str
    head: Cells
    body: Sequence[Cells]
    note: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.body)


@dataclass(frozen=True)
class BeforeAfter:
    """Two responses to one problem, before and after training."""

    problem: str
    gold: str
    before: SampleRow
    after: SampleRow

    @property
    def outcome(self) -> str:
        before, after = (sample.status == Status.CORRECT for sample in (self.before, self.after))
        return OUTCOMES[(("wrong", "better"), ("worse", "right"))[before][after]]


def held_out(run: Results, found: Effect) -> Table:
    """Return the table that compares base model and result, and another start or last policy if there is one."""
    base, final, last, warm = run.eval.base, run.eval.final, run.eval.last, run.eval.warm
    samples, result = run.samples, run.summary.result
    assert base
    assert final
    start, end = _scored(base, found.before, samples["base"]), _scored(final, found.after, samples["final"])
    change = {"pass@1": points(found.difference.value), INTERVAL: span(found.difference.interval)}
    both = [k for k in base.pass_at if k > 1 and k in final.pass_at]
    change |= {f"pass@{k}": points(final.pass_at[k] - base.pass_at[k]) for k in both}
    longer = round(final.mean_length, 2) - round(base.mean_length, 2)
    change["mean length, tokens"] = decimal(longer, 2, sign="+")
    if samples["base"] and samples["final"]:
        shares = {
            name: [fmean(map(rewarded, samples[p])) for p in ("base", "final")] for name, rewarded in COUNTED.items()
        }
        change |= {name: points(after - before) for name, (before, after) in shares.items()}
    weighed = any(part["weight"] for part in run.config.get("reward.custom") or [])
    if (weighed or not weighs_answers(run.config)) and (rewarded := reward_effect(samples["base"], samples["final"])):
        start["reward"], end["reward"] = precise(rewarded.before.value), precise(rewarded.after.value)
        change |= {"reward": rewarded.size(), f"{INTERVAL} of the reward": rewarded.interval}
    config = run.config
    limit = config.get("eval.max_response_tokens") or config.get("rollout.max_response_tokens")
    note = (
        f"Changes of percentages are in percentage points. Temperature {compact(config.get('eval.temperature'))}, top_p"
        f" {compact(config.get('eval.top_p'))}, at most {limit} tokens; the same problems, seeds and limits for both."
    )
    if base.problems != final.problems:
        note += f" Only pass@1 is over the {found.problems} problems of both evaluations."
    trained = f"result: update {result.update}" if last and result else "trained"
    columns = {"base": start, trained: end, "change": change}
    if last and result:
        columns[f"last: update {run.summary.updates}"] = _scored(last, mean_of(last), samples["last"])
        note += f" The last policy on {many(last.problems, 'problem')}; it is not the result."
    if warm and (before := effect(run, last="warm")) and (since := reinforcement(run)):
        rest = {"pass@1": points(since.difference.value), INTERVAL: span(since.difference.interval)}
        columns = {"base": start, run.start: _scored(warm, mean_of(warm), samples["warm"])} | columns
        columns[f"since the {run.start}"] = rest
        note += (
            f" The {run.start} changed pass@1 by {points(before.difference.value)} points; the rest is reinforcement"
            " learning."
        )
    rows = [(name, *(column.get(name, "") for column in columns.values())) for name in change]
    return Table("Held-out problems", ("", *columns), rows, note)


def _scored(scores: PolicyScores, mean: Mean, samples: Sequence[SampleRow]) -> dict[str, str]:
    """Return the cells of a policy by row."""
    passed = {f"pass@{k}": percent(share) for k, share in scores.pass_at.items()}
    cells = passed | {"pass@1": percent(mean.value), INTERVAL: span(mean.interval)}
    cells["mean length, tokens"] = decimal(scores.mean_length, 2)
    counts = {name: sum(map(count, samples)) for name, count in COUNTED.items() if samples}
    return cells | {name: f"{number} of {len(samples)}" for name, number in counts.items()}


COUNTED: dict[str, Callable[[SampleRow], bool]] = {
    "truncated": lambda row: row.finish_reason == "length",
    "unparsable": lambda row: row.status == Status.UNPARSABLE,
}
"""Kinds of samples that are counted."""


def benchmarks(run: Results) -> Table:
    """Return the table of `eval.benchmarks`, which the run measures itself."""
    rows: list[Cells] = []
    for name, gain in changes(run).items():
        change = points(gain.difference.value), span(gain.difference.interval)
        rows.append((name, str(gain.problems), *level(gain.before), *level(gain.after), *change))
    head = ("pass@1", "problems", "base", "95 % interval", "trained", "95 % interval", "change", "95 % interval")
    apart = "" if run.config.get("data.contamination") == "report_only" else "The run was not trained on them. "
    together = f"; their intervals hold for all {len(rows)} together" if len(rows) > 1 else ""
    return Table("Benchmarks in the run", head, rows, f"{apart}Changes are in points{together}.")


def evaluation_table(document: EvaluationDocument) -> Table:
    """Return the table of launch/evaluate.py: a row per benchmark and score, a column per policy."""
    policies = [policy for policy in POLICIES if any(getattr(each, policy) for each in document.benchmarks)]
    rows: list[Cells] = []
    for benchmark in document.benchmarks:
        title = f"{benchmark.name}, {benchmark.problems} problems"
        columns = [_figures(scores) if (scores := getattr(benchmark, policy)) else {} for policy in policies]
        for name in columns[0]:
            rows.append((title, name, *(column.get(name, "") for column in columns)))
            title = ""
    return Table("Benchmarks", ("benchmark", "score", *policies), rows, "; ".join(evaluation_notes(document)))


def _figures(scores: PolicyScores) -> dict[str, str]:
    measured = {f"pass@{k}": value for k, value in scores.pass_at.items()}
    measured |= {} if scores.maj_at_n is None else {"maj@n": scores.maj_at_n}
    intervals = {"pass@1": scores.ci95, **scores.intervals}

    def ends(interval: list[float] | None) -> str:
        return " ({:.3f}–{:.3f})".format(*interval) if interval else ""

    return {
        "n": str(scores.n),
        **{name: f"{value:.3f}{ends(intervals.get(name))}" for name, value in measured.items()},
        "length": f"{scores.mean_length:.0f}",
        "truncated": f"{scores.truncated:.0%}",
        "format": f"{scores.format or 0:.0%}",
        "unverified": f"{scores.unverified:.1%}",
        "tokens": f"{scores.tokens:,}",
        "time": duration(scores.seconds),
    }


def evaluation_notes(document: EvaluationDocument) -> list[str]:
    """Return the sentences below the table: the protocol, and the adapter compared with the base model."""
    protocol = document.protocol
    said = [
        f"{protocol.model} in {protocol.dtype}: temperature {protocol.temperature:g}, top_p "
        f"{protocol.top_p:g}, at most {protocol.max_response_tokens} tokens per response, seed {protocol.seed}; "
        "95 % intervals over problems; time is the sum of the seconds between consecutive samples"
    ]
    if protocol.adapter and (adapter := protocol.adapter_config):
        said.append(f"adapter: {protocol.adapter}, of rank {adapter.rank}, made for {adapter.base}")
    for benchmark in document.benchmarks:
        name, base = benchmark.name, benchmark.base
        if paired := benchmark.paired:
            sure = f"{benchmark.problems} problems, too few to tell it from chance"
            if paired.ci95:
                sure = "95 % interval {:+.3f} to {:+.3f}, p = {:.2g}".format(*paired.ci95, paired.p)
            said.append(f"{name}: adapter minus base {paired.difference:+.3f} in pass@1 ({sure})")
        if base and base.n < benchmark.n:
            said.append(f"{name}: {base.n} of {benchmark.n} samples per problem so far")
        if filtered := ", ".join(f"{count} {reason}" for reason, count in benchmark.filtered_counts.items()):
            said.append(f"{name}: problems filtered from its source: {filtered}")
    return said if document.benchmarks else [*said, "No round of samples is complete yet"]


def plasticity(run: Results) -> Table:
    plasticity = run.summary.plasticity or Plasticity()
    rows: list[Cells] = []
    if entropy := plasticity.probe_entropy:
        change = f"{points(entropy.change)} %"
        rows.append(("entropy", f"{entropy.before:.3g} → {entropy.after:.3g} nats per token, {change}"))
    if plasticity.kl_to_base is not None:
        rows.append(("KL to the reference", f"{plasticity.kl_to_base:.3g} nats per token"))
    if ranks := plasticity.effective_rank:
        allowed = f" of {plasticity.rank}" if plasticity.rank else ""
        spread = f"{min(ranks.values()):.1f} to {max(ranks.values()):.1f}"
        rows.append(("effective rank", f"{fmean(ranks.values()):.1f}{allowed} on average, {spread}"))
    note = (
        "The reference set has fixed responses of the base model, on which entropy and KL are exact. The curves use the"
        " policy's own responses, so that their values differ."
    )
    return Table("How far the model has moved", ("on the reference set", "value"), rows, note)


def seconds(run: Results) -> Table:
    """Return the table of the ledger's seconds by actor."""
    by_actor = {actor: times for actor, times in run.summary.ledger.seconds.items() if any(times.values())}
    rows = [
        (actor if number == 0 else "", *cells)
        for actor, times in by_actor.items()
        for number, cells in enumerate(_parts(times, time))
    ]
    return Table("Seconds by actor", ("actor", "activity", "time", "fraction"), rows)


def tokens(run: Results) -> Table:
    """Return the table of generated tokens by class."""
    words = WORDS["token_classes"]
    classes = {words.get(name, name): n for name, n in run.counts("tokens/").items() if n > 0}
    return Table("Generated tokens", ("class", "tokens", "fraction"), _parts(classes, count))


def _parts(amounts: Mapping[str, float], written: Callable[[float], str]) -> list[Cells]:
    """Return rows of the parts of a whole, the largest first: name, amount, fraction."""
    order = sorted(amounts.items(), key=lambda item: -item[1])
    return [(name.replace("_", " "), written(n), percent(n / sum(amounts.values()))) for name, n in order]


def settings(run: Results) -> dict[str, str]:
    """Return the most important settings, by their names in plain words."""
    known = {name: run.config.get(key) for name, key in WORDS["settings"].items()}
    known["data"] = known["data"] or " + ".join(each["source"] for each in run.config.get("data.mixture") or [])
    known |= {"reward": formula(run.config), "budget": time(run.budget_s) if run.budget_s else ""}
    return {name: compact(value) for name, value in known.items() if value not in (None, "")}


def provenance(run: Results) -> dict[str, str]:
    """Return machine, time, commit and command of the run."""
    facts = {"machine": run.summary.hardware or run.origin.machine}
    facts |= {name: getattr(run.origin, name) for name in ("started", "commit", "command")}
    return {name: value for name, value in facts.items() if value}


def pairs(run: Results) -> list[BeforeAfter]:
    """Return samples of a few problems before and after training, one outcome after the other, changed ones first."""
    by_outcome = pairs_by_outcome(run.samples["base"], run.samples["final"])
    return one_each(filter(None, itertools.chain(*itertools.zip_longest(*by_outcome.values()))))[:SHOWN_PAIRS]


def one_each(pairs: Iterable[BeforeAfter]) -> list[BeforeAfter]:
    """Return the first pair of each problem."""
    by_outcome: dict[str, BeforeAfter] = {}
    for pair in pairs:
        by_outcome.setdefault(pair.after.problem, pair)
    return [*by_outcome.values()]


def pairs_by_outcome(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> dict[str, list[BeforeAfter]]:
    """Return all pairs of samples from before and after training, by outcome: of changed ones the more common first."""
    first, problems = _numbered(before), problem_in({sample.prompt for sample in after})
    pairs = [
        BeforeAfter(problems[then.prompt], then.gold, first[key], then)
        for key, then in _numbered(after).items()
        if key in first
    ]
    each = {outcome: [pair for pair in pairs if pair.outcome == outcome] for outcome in OUTCOMES.values()}
    worse, better, *_ = each
    return {better: each[better], **each} if len(each[better]) > len(each[worse]) else each


def _numbered(samples: Sequence[SampleRow]) -> dict[tuple[str, int], SampleRow]:
    """Return samples by problem, and number within the problem."""
    numbers = defaultdict[str, Iterator[int]](itertools.count)
    return {(sample.problem, next(numbers[sample.problem])): sample for sample in samples}


def problem_in(prompts: set[str]) -> dict[str, str]:
    """Return each prompt without the first and last lines that all share: instructions, examples, chat template."""
    lines = {prompt: prompt.split("\n") for prompt in prompts}
    start = end = 0
    if len(prompts) > 1:
        start = _common(lines.values())
        end = _common(of_prompt[::-1] for of_prompt in lines.values())
    return {prompt: SPECIAL.sub("", "\n".join(text[start : len(text) - end])) for prompt, text in lines.items()}


def _common(texts: Iterable[list[str]]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda same: len(set(same)) == 1, zip(*texts, strict=False)))

"""The tables of a run's report, and the samples in it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from statistics import fmean

from actors.evaluation.statistics import PASS_KS
from actors.messages import Status
from actors.storage.documents import BenchmarkResult, EvaluationDocument, PolicyScores, SampleRow
from conf.schema.reward import formula
from launch.reporting.history import RANK, Run
from launch.reporting.paper import results_for
from launch.reporting.verdict import Change
from launch.reporting.wording import (
    MISSING,
    SPACE,
    WORDS,
    compact,
    count,
    decimal,
    percent,
    points,
    shorten,
    signed,
    span,
    time,
)

SHOWN_PAIRS = 6
"""Pairs of samples in a report."""

SHOWN_EVENTS = 30

MEASURED = {
    True: "on fixed responses of the base model",
    False: "of the training samples, first against last tenth of the updates",
}
"""What a change of entropy is of: probed or not."""

NARROW = 0.2
"""Difference of lengths, tokens, that one decimal would not show."""

SPECIAL = re.compile(r"(\s*<\|?\w+\|?>)+\s*$")
"""The end of a turn in a chat template."""

OUTCOMES = {
    (False, True): "wrong before, right after",
    (True, False): "right before, wrong after",
    (False, False): "wrong both times",
    (True, True): "right both times",
}

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of a report. The first column names the rows."""

    caption: str
    head: Cells
    body: tuple[Cells, ...]
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """What was answered to one problem, before and after."""

    problem: str
    gold: str
    before: SampleRow
    after: SampleRow

    @property
    def outcome(self) -> str:
        return OUTCOMES[self.before.status == Status.CORRECT, self.after.status == Status.CORRECT]


def held_out(run: Run, found: Change) -> Table:
    """Compare the evaluations of the run itself."""
    base, final = run.base, run.final
    assert base
    assert final
    ks = [k for k in base.pass_at if k > 1 and k in final.pass_at]
    rows = [
        ("pass@1", percent(found.before.value), percent(found.after.value), points(found.difference.value)),
        ("95 % interval", *(span(of.interval) for of in (found.before, found.after, found.difference))),
        *((f"pass@{k}", *_shares(base.pass_at[k], final.pass_at[k])) for k in ks),
        ("mean length, tokens", *_lengths(base.mean_length, final.mean_length)),
        ("cut off at the limit", *_shares(base.truncated, final.truncated)),
    ]
    config = run.config
    limit = config.get("eval.max_response_tokens") or config.get("rollout.max_response_tokens")
    note = (
        f"Changes of shares in points. Temperature {compact(config.get('eval.temperature'))}, top-p"
        f" {compact(config.get('eval.top_p'))}, at most {limit} tokens; the same problems, seeds and limits before and"
        f" after."
    )
    if base.problems != final.problems:
        note += (
            f" Before there are {base.problems} problems, after {final.problems}: pass@1 is of those that both"
            f" judged, what stands below its interval of all that each did."
        )
    return Table("Held-out problems", ("", "before", "after", "change"), tuple(rows), note)


def _lengths(before: float, after: float) -> Cells:
    """Write two lengths with as many decimals as their difference needs to be seen."""
    digits = 1 if abs(after - before) >= NARROW else 2
    return decimal(before, digits), decimal(after, digits), signed(round(after, digits) - round(before, digits), digits)


def _shares(before: float, after: float) -> Cells:
    return percent(before), percent(after), points(after - before)


def benchmarks(run: Run) -> list[Table]:
    """Return a table for each benchmark of launch/evaluate.py, with the paper's numbers where the model is its."""
    paper, evaluation = results_for(run.model), run.evaluation
    tables = []
    for benchmark in evaluation.benchmarks if evaluation else ():
        name, sides = benchmark.name, _sides(benchmark)
        published = paper.benchmarks.get(name.lower(), {}) if paper else {}
        measured = {k for side in sides.values() for k in side.pass_at}
        ks = sorted(measured | set(PASS_KS if published else ()))
        rows: list[Cells] = []
        for said, side in sides.items():
            found = [side.pass_at.get(k) for k in ks]
            rows.append((said, *(percent(each.value if each else None) for each in found)))
            rows.append(("95 %", *(span(each and each.ci95) for each in found)))
        for said, values in published.items():
            shares = {k: value / 100 for k, value in zip(PASS_KS, values, strict=True)}
            rows.append((f"paper, {said}", *(percent(shares.get(k)) for k in ks)))
        caption = f"{name}, {benchmark.problems} problems"
        assert evaluation
        note = " ".join(filter(None, (*_figures(benchmark), conditions(evaluation, benchmark))))
        tables.append(Table(caption, ("", *(f"@{k}" for k in ks)), tuple(rows), note))
    return tables


def _sides(benchmark: BenchmarkResult) -> dict[str, PolicyScores]:
    """Return the scores that there are by policy, as it is called in a report."""
    return {name: scores for name, scores in (("base", benchmark.base), ("trained", benchmark.adapter)) if scores}


def conditions(evaluation: EvaluationDocument, benchmark: BenchmarkResult) -> str:
    """Say how a benchmark's samples were drawn, and which rows of its source were not posed."""
    protocol = evaluation.protocol
    named = {"temperature": "temperature", "top_p": "top-p", "dtype": "number format"}
    parts = [f"{name} {compact(value)}" for key, name in named.items() if (value := getattr(protocol, key)) is not None]
    parts += [f"at most {protocol.max_response_tokens} tokens"] if protocol.max_response_tokens else []
    said = [f"Protocol: {', '.join(parts)}."] if parts else []
    dropped = [f"{number} {reason}" for reason, number in benchmark.dropped.items()]
    return " ".join([*said, f"Rows left out: {', '.join(dropped)}."] if dropped else said)


def _figures(benchmark: BenchmarkResult) -> list[str]:
    """Say by how much pass@1 has changed, and what else was measured of each policy."""
    said = []
    if paired := benchmark.paired:
        sure = f"95 % {span(paired.ci95)}; p = {paired.p:.2g}" if paired.ci95 else "too few problems to tell"
        change = f"{points(paired.difference)} points ({sure})"
        said.append(f"pass@1 changed by {change}.")
    for name, side in _sides(benchmark).items():
        parts = [f"{side.n}{f' of {benchmark.n}' if side.n < benchmark.n else ''} samples each"]
        parts += [f"maj@n {percent(side.maj_at_n.value)}"] if side.maj_at_n else []
        parts += [f"{decimal(side.mean_length, 0)} tokens on average", f"{percent(side.truncated)} cut off"]
        parts += [f"format {percent(side.format)}"] if side.format is not None else []
        said.append(f"{name.capitalize()}: {', '.join(parts)}.")
    return said


def entropy(run: Run) -> Table | None:
    """Return the paper's second table, with this run in it; None of another model, whose change `plasticity` has."""
    probed = run.plasticity.probe_entropy is not None
    paper, change = results_for(run.model), run.entropy_change(probed)
    if paper is None or change is None:
        return None
    here = {int(run.config.get(RANK, 0)): points(change)}
    published = {rank: signed(of_paper) for rank, of_paper in paper.entropy.items()}
    ranks = sorted({*here, *published})
    lines = {"this run": here, "paper": published}
    rows = tuple((name, *(line.get(rank, MISSING) for rank in ranks)) for name, line in lines.items())
    head = ("", *(f"r = {rank}" for rank in ranks))
    return Table("Change of entropy, % by rank", head, rows, f"Here {MEASURED[probed]}.")


def plasticity(run: Run) -> Table | None:
    """Return plasticity in single numbers."""
    found = run.plasticity
    rows: list[Cells] = []
    if probe := found.probe_entropy:
        change = f", {signed(100 * probe.change)}{SPACE}%"
        rows.append(("entropy", f"{probe.before:.3g} → {probe.after:.3g} nats a token{change}"))
    if found.kl_to_base is not None:
        rows.append(("KL to the base model", f"{found.kl_to_base:.3g} nats a token"))
    rows += [(f"norm of {module}", f"{norm:.3g}") for module, norm in found.adapter_norm.items()]
    if ranks := found.effective_rank:
        allowed = f" of {found.rank}" if found.rank else ""
        spread = f"{min(ranks.values()):.1f} to {max(ranks.values()):.1f}"
        rows.append(("effective rank", f"{fmean(ranks.values()):.1f}{allowed} on average, {spread}"))
    note = "Entropy and KL are exact, on fixed responses of the base model; the curves are of other samples."
    return Table("How far the model has moved", ("measure", "value"), tuple(rows), note) if rows else None


def seconds(run: Run) -> Table | None:
    """Return the ledger's seconds of every actor, the longest activity first."""
    actors = run.summary.ledger.seconds
    rows = [
        (actor if number == 0 else "", activity.replace("_", " "), time(spent), percent(spent / sum(times.values())))
        for actor, times in actors.items()
        for number, (activity, spent) in enumerate(sorted(times.items(), key=lambda item: -item[1]))
    ]
    return Table("Seconds by actor", ("actor", "activity", "time", "share"), tuple(rows)) if rows else None


def token_classes(run: Run) -> dict[str, int]:
    """Return the generated tokens by class, the largest first."""
    counts = run.summary.ledger.counts
    classes = {name.removeprefix("tokens/"): n for name, n in counts.items() if name.startswith("tokens/") and n > 0}
    return dict(sorted(classes.items(), key=lambda item: -item[1]))


def tokens(run: Run) -> Table | None:
    classes = token_classes(run)
    rows = [
        (name.replace("_", " "), WORDS["token_classes"].get(name, ""), count(n), percent(n / sum(classes.values())))
        for name, n in classes.items()
    ]
    return Table("Generated tokens", ("class", "", "tokens", "share"), tuple(rows)) if rows else None


def events(run: Run) -> Table | None:
    keys = ("update", "event", "detail")
    rows = [(str(each.update), shorten(each.event), shorten(each.detail)) for each in run.events[:SHOWN_EVENTS]]
    more = f"{len(run.events) - len(rows)} more are in events.jsonl." if len(run.events) > len(rows) else ""
    return Table("What happened besides", keys, tuple(rows), more) if rows else None


def settings(run: Run) -> list[tuple[str, str]]:
    """Return the settings that a reader asks for first, by their names in plain words."""
    known = [
        (name, run.config[key]) for name, key in WORDS["settings"].items() if run.config.get(key) not in (None, "")
    ]
    budget = [("budget", time(run.budget_s))] if run.budget_s else []
    reward = [("reward", earned)] if (earned := formula(run.config)) else []
    return [(name, compact(value)) for name, value in known] + reward + budget


def provenance(run: Run) -> list[tuple[str, str]]:
    """Say on what machine, when and by which command and commit the run was made."""
    origin = run.origin
    found = {
        "machine": origin.machine or run.summary.hardware,
        "started": origin.started.replace("T", " ").replace("+00:00", " UTC"),
        "commit": origin.commit,
        "command": origin.command,
    }
    return [(name, value) for name, value in found.items() if value]


def pairs(run: Run) -> list[Pair]:
    """Return a few samples before and after, of every outcome in turn, what has changed first."""
    by_outcome = pairs_by_outcome(run.before, run.after)
    return [pair for each in zip_longest(*by_outcome.values()) for pair in each if pair][:SHOWN_PAIRS]


def pairs_by_outcome(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> dict[str, list[Pair]]:
    """Return all samples that were drawn both before and after, by their outcome."""
    first = _by_draw(before)
    problems = problem_in({sample.prompt for sample in after})
    by_outcome: dict[str, list[Pair]] = {name: [] for name in OUTCOMES.values()}
    for draw, then in _by_draw(after).items():
        if (earlier := first.get(draw)) is not None:
            pair = Pair(problems[then.prompt], then.gold, earlier, then)
            by_outcome[pair.outcome].append(pair)
    return by_outcome


def _by_draw(samples: Sequence[SampleRow]) -> dict[tuple[str, int], SampleRow]:
    """Return samples by problem and number."""
    drawn: dict[tuple[str, int], SampleRow] = {}
    numbers: dict[str, int] = {}
    for sample in samples:
        numbers[sample.problem] = numbers.get(sample.problem, -1) + 1
        drawn[sample.problem, numbers[sample.problem]] = sample
    return drawn


def problem_in(prompts: set[str]) -> dict[str, str]:
    """Return each prompt without the lines that all begin and end with: instructions, examples, the chat template."""
    if len(prompts) < 2:
        return {prompt: SPECIAL.sub("", prompt) for prompt in prompts}
    lines = {prompt: prompt.split("\n") for prompt in prompts}
    start = _common(lines.values())
    end = _common(of_prompt[::-1] for of_prompt in lines.values())
    return {
        prompt: SPECIAL.sub("", "\n".join(of_prompt[start : len(of_prompt) - end]))
        for prompt, of_prompt in lines.items()
    }


def _common(texts: Iterable[list[str]]) -> int:
    """Count the lines that all texts begin with."""
    return sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*texts, strict=False)))

"""The tables of a run's report."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Any

from launch.reports.history import CORRECT, SEED, Row, Run
from launch.reports.paper import KS, results_for
from launch.reports.verdict import Change
from launch.reports.wording import MISSING, count, figure, percent, plain, points, shorten, signed, span, time

SHOWN_SAMPLES = 6
"""Pairs of samples in a report."""

SHOWN_EVENTS = 30

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """caption: above it. The first column names the rows. note: below it."""

    caption: str
    head: Cells
    body: tuple[Cells, ...]
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """What was answered to one problem, before and after."""

    problem: str
    gold: str
    before: Row
    after: Row

    @property
    def outcome(self) -> str:
        marks = self.before["status"] == CORRECT, self.after["status"] == CORRECT
        return {
            (False, True): "wrong before, right after",
            (True, False): "right before, wrong after",
            (True, True): "right both times",
            (False, False): "wrong both times",
        }[marks]


def held_out(run: Run, found: Change) -> Table:
    """The evaluations of the run itself."""
    base, final = run.base or {}, run.final or {}
    ks = [key for key in base if key.startswith("pass@") and key != "pass@1" and key in final]
    rows = [
        ("pass@1", percent(found.before.value), percent(found.after.value), points(found.difference)),
        ("95 % interval", *(span(of.interval) for of in (found.before, found.after, found))),
        *((k, percent(base[k]), percent(final[k]), points(final[k] - base[k])) for k in ks),
        ("mean length, tokens", *_three(base, final, "mean_length")),
        (
            "cut off at the limit",
            percent(base["truncated"]),
            percent(final["truncated"]),
            points(final["truncated"] - base["truncated"]),
        ),
    ]
    config = run.config
    limit = config.get("eval.max_response_tokens") or config.get("rollout.max_response_tokens")
    sampling = f"Temperature {figure(config.get('eval.temperature'))}, top-p {figure(config.get('eval.top_p'))}"
    settings = (
        f"Changes of shares in points. {sampling}, at most {limit} tokens; the same problems, seeds and limits before"
        f" and after."
    )
    if base["problems"] != final["problems"]:
        settings += (
            f" Before there are {base['problems']} problems, after {final['problems']}: pass@1 is of those that both"
            f" judged, what stands below its interval of all that each did."
        )
    return Table("Held-out problems", ("", "before", "after", "change"), tuple(rows), settings)


def _three(base: Row, final: Row, key: str) -> Cells:
    return plain(base[key]), plain(final[key]), signed(final[key] - base[key], 1)


def benchmarks(run: Run) -> list[Table]:
    """One for each benchmark of launch/evaluate.py, in the paper's shape, with its numbers where the model is its."""
    paper = results_for(str(run.config.get("model.path", "")))
    tables = []
    for benchmark in run.evaluation.get("benchmarks") or ():
        sides = [(name, benchmark[key]) for key, name in SIDES.items() if benchmark.get(key)]
        name = str(benchmark["name"])
        published = paper.benchmarks.get(name.lower(), {}) if paper else {}
        measured = {int(key[5:]) for _, side in sides for key in side if key.startswith("pass@")}
        ks = sorted(measured | set(KS if published else ()))
        rows: list[Cells] = []
        for side, values in sides:
            rows.append((side, *(percent(_value(values.get(f"pass@{k}"))) for k in ks)))
            rows.append(("95 %", *(span(_interval(values.get(f"pass@{k}"))) for k in ks)))
        for side, values in published.items():
            shares = dict(zip(KS, values, strict=True))
            rows.append((f"paper, {side}", *(percent(shares[k] / 100) if k in shares else MISSING for k in ks)))
        caption = f"{name}, {benchmark.get('problems', '?')} problems"
        tables.append(
            Table(caption, ("", *(f"@{k}" for k in ks)), tuple(rows), " ".join(_remarks(run.evaluation, benchmark)))
        )
    return tables


SIDES = {"base": "base", "adapter": "trained"}


def conditions(evaluation: Row) -> str:
    """Under which a benchmark's samples were drawn."""
    protocol = evaluation.get("protocol") or {}
    named = {"temperature": "temperature", "top_p": "top-p", "dtype": "number format"}
    parts = [f"{name} {figure(protocol[key])}" for key, name in named.items() if key in protocol]
    parts += [f"at most {protocol['max_response_tokens']} tokens"] if "max_response_tokens" in protocol else []
    return f"Protocol: {', '.join(parts)}." if parts else ""


def dropped(benchmark: Row) -> str:
    """Rows of a benchmark's source that were not posed, by reason."""
    rows = benchmark.get("dropped") or {}
    return f"Rows left out: {', '.join(f'{number} {reason}' for reason, number in rows.items())}." if rows else ""


def _remarks(evaluation: Row, benchmark: Row) -> Iterator[str]:
    if paired := benchmark.get("paired"):
        yield (
            f"pass@1 changed by {points(paired['difference'])} points (95 % {span(paired['ci95'])};"
            f" p = {paired['p']:.2g})."
        )
    for key, name in SIDES.items():
        side = benchmark.get(key) or {}
        asked = benchmark.get("n") or (evaluation.get("protocol") or {}).get("n", 0)
        parts = [f"{side['n']}{f' of {asked}' if side['n'] < asked else ''} samples each"] if "n" in side else []
        parts += [f"maj@n {percent(_value(side['maj@n']))}"] if side.get("maj@n") is not None else []
        parts += [f"{plain(side['mean_length'], 0)} tokens on average"] if "mean_length" in side else []
        parts += [f"{percent(side['truncated'])} cut off"] if "truncated" in side else []
        parts += [f"format {percent(side['format'])}"] if side.get("format") is not None else []
        if parts:
            yield f"{name.capitalize()}: {', '.join(parts)}."
    yield from filter(None, (conditions(evaluation), dropped(benchmark)))


def _value(measure: Any) -> float | None:
    return measure.get("value") if isinstance(measure, dict) else measure


def _interval(measure: Any) -> Any:
    return measure.get("ci95") if isinstance(measure, dict) else None


PROBED = "on fixed probe responses"
OVER_UPDATES = "of the training samples, first against last tenth of the updates"


def entropy_change(run: Run, probed: bool = True) -> tuple[float, str] | None:
    """Relative change of the entropy per token, and of what: of fixed responses where that was measured and is wanted,
    else of the first and last tenth of the updates.
    """
    if probed and (probe := run.plasticity.get("probe_entropy")):
        return float(probe["change"]), PROBED
    _, values = run.series("policy/entropy")
    tenth = max(len(values) // 10, 1)
    if len(values) < 2 or not (first := fmean(values[:tenth])):
        return None
    return fmean(values[-tenth:]) / first - 1, OVER_UPDATES


def entropy_table(run: Run) -> Table | None:
    """The paper's second table, with this run in it."""
    found = entropy_change(run)
    if found is None:
        return None
    rank = int(run.config.get("lora.rank", 0))
    paper = results_for(str(run.config.get("model.path", "")))
    ranks = sorted({rank, *(paper.entropy if paper else ())})
    rows: list[Cells] = [("this run", *(signed(found[0] * 100, 1) if r == rank else MISSING for r in ranks))]
    if paper:
        rows.append(("paper", *(signed(paper.entropy[r], 1) if r in paper.entropy else MISSING for r in ranks)))
    return Table("Change of entropy, % by rank", ("", *(f"r = {r}" for r in ranks)), tuple(rows), f"Here {found[1]}.")


def measures(run: Run) -> Table | None:
    """Plasticity in single numbers."""
    plasticity = run.plasticity
    rows: list[Cells] = []
    if probe := plasticity.get("probe_entropy"):
        levels = f"{probe['before']:.3g} → {probe['after']:.3g} nats a token"
        rows.append(("entropy on the probe", levels))
    if plasticity.get("kl_to_base") is not None:
        rows.append(("KL to the base model", f"{plasticity['kl_to_base']:.3g} nats a token"))
    rows += [(f"norm of {module}", f"{norm:.3g}") for module, norm in (plasticity.get("adapter_norm") or {}).items()]
    if ranks := plasticity.get("effective_rank"):
        allowed = f" of {plasticity['rank']}" if plasticity.get("rank") else ""
        spread = f"{min(ranks.values()):.1f} to {max(ranks.values()):.1f}"
        rows.append(("effective rank", f"{fmean(ranks.values()):.1f}{allowed} on average, {spread}"))
    return Table("Plasticity", ("measure", "value"), tuple(rows)) if rows else None


def seconds(run: Run) -> Table | None:
    """The ledger's seconds of every actor, the longest activity first."""
    actors = run.ledger.get("seconds") or {}
    rows = [
        (actor if number == 0 else "", activity.replace("_", " "), time(spent), percent(spent / sum(times.values())))
        for actor, times in actors.items()
        for number, (activity, spent) in enumerate(sorted(times.items(), key=lambda item: -item[1]))
    ]
    return Table("Seconds by actor", ("actor", "activity", "time", "share"), tuple(rows)) if rows else None


TOKEN_CLASSES = {
    "useful": "learned from",
    "zero_variance": "in groups without variance: nothing to learn",
    "truncated": "cut off, not learned from",
    "failed": "without a verdict",
    "waiting": "not yet used",
    "unused": "left over at the end",
    "cancelled": "of samples broken off",
    "abandoned": "lost with a history that was given up",
    "eval": "for evaluation",
    "canary": "for the canary",
}


def token_classes(run: Run) -> dict[str, int]:
    counts = run.ledger.get("counts") or {}
    return {name.removeprefix("tokens/"): n for name, n in counts.items() if name.startswith("tokens/") and n > 0}


def tokens(run: Run) -> Table | None:
    classes = token_classes(run)
    if not classes:
        return None
    whole = sum(classes.values())
    rows = [
        (name.replace("_", " "), TOKEN_CLASSES.get(name, ""), count(n), percent(n / whole))
        for name, n in sorted(classes.items(), key=lambda item: -item[1])
    ]
    return Table("Generated tokens", ("class", "", "tokens", "share"), tuple(rows))


def events(run: Run) -> Table | None:
    shown = run.events[:SHOWN_EVENTS]
    rows = [
        (str(e.get("update", "")), shorten(str(e.get("event", ""))), shorten(str(e.get("detail", "")))) for e in shown
    ]
    more = f"{len(run.events) - len(shown)} more are in events.jsonl." if len(run.events) > len(shown) else ""
    return Table("What happened besides", ("update", "event", "detail"), tuple(rows), more) if rows else None


SETTINGS = {
    "model": "model.path",
    "number format": "model.dtype",
    "data": "data.source",
    "held-out data": "data.eval_source",
    "rank": "lora.rank",
    "alpha": "lora.alpha",
    "learning rate": "learner.learning_rate",
    "schedule": "learner.schedule",
    "problems an update": "learner.problems_per_update",
    "samples a problem": "rollout.samples_per_problem",
    "response limit, tokens": "rollout.max_response_tokens",
    "temperature": "rollout.temperature",
    "max. staleness": "learner.max_staleness",
    "algorithm": "algorithm.preset",
    "KL coefficient": "algorithm.kl",
    "reward": "reward.preset",
    "seed": SEED,
}


def settings(run: Run) -> list[tuple[str, str]]:
    """What a reader asks first; all of it is in `whole_config`."""
    known = [(name, run.config[key]) for name, key in SETTINGS.items() if run.config.get(key) not in (None, "")]
    budget = [("budget", time(run.budget_s))] if run.budget_s else []
    return [(name, figure(value)) for name, value in known] + budget


def whole_config(run: Run) -> str:
    return (run.folder / "config.yaml").read_text()


def pairs(run: Run) -> list[Pair]:
    """A few samples before and after, of every outcome in turn, what has changed first."""
    first = _by_draw(run.before)
    problems = problem_in({str(sample["prompt"]) for sample in run.after})
    by_outcome: dict[str, list[Pair]] = {name: [] for name in OUTCOMES}
    for draw, after in _by_draw(run.after).items():
        if (before := first.get(draw)) is not None:
            pair = Pair(problems[str(after["prompt"])], str(after["gold"]), before, after)
            by_outcome[pair.outcome].append(pair)
    columns = [found for found in by_outcome.values() if found]
    rounds = range(max(map(len, columns), default=0))
    return [found[number] for number in rounds for found in columns if number < len(found)][:SHOWN_SAMPLES]


OUTCOMES = ("wrong before, right after", "right before, wrong after", "wrong both times", "right both times")


def _by_draw(samples: tuple[Row, ...]) -> dict[tuple[str, int], Row]:
    """Samples by problem and round."""
    rounds: dict[str, int] = {}
    drawn = {}
    for sample in samples:
        problem = str(sample["problem"])
        rounds[problem] = rounds.get(problem, -1) + 1
        drawn[problem, rounds[problem]] = sample
    return drawn


def problem_in(prompts: set[str]) -> dict[str, str]:
    """Each prompt without the lines that all begin and end with: instructions, examples, the chat template."""
    lines = {prompt: prompt.split("\n") for prompt in prompts}
    if len(prompts) < 2:
        return {prompt: prompt for prompt in prompts}
    start = _common(lines.values())
    end = _common(line[::-1] for line in lines.values())
    return {prompt: "\n".join(of_prompt[start : len(of_prompt) - end]) for prompt, of_prompt in lines.items()}


def _common(texts: Iterable[list[str]]) -> int:
    """Lines that all texts begin with."""
    return sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*texts, strict=False)))

"""The tables of a run's report, and the samples in it."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile, zip_longest
from statistics import fmean

from actors.messages import Status
from conf.schema.reward import formula
from launch.reporting.history import Row, Run
from launch.reporting.run_conclusion import Change
from launch.reporting.wording import (
    WORDS,
    compact,
    count,
    decimal,
    p_value,
    percent,
    points,
    shorten,
    signed,
    span,
    time,
)

SHOWN_PAIRS = 6
"""Number of problems whose samples are shown side by side."""

SHOWN_EVENTS = 30

SIDES = {"base": "base", "adapter": "trained"}
"""Names of the two policies of an evaluation.json."""

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
    """A table of a report. The first column names the rows. links: addresses by the text of the first column."""

    caption: str
    head: Cells
    body: Sequence[Cells]
    note: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.body)


@dataclass(frozen=True)
class Pair:
    """Two responses to one problem, before and after training."""

    problem: str
    gold: str
    before: Row
    after: Row

    @property
    def outcome(self) -> str:
        return OUTCOMES[self.before["status"] == Status.CORRECT, self.after["status"] == Status.CORRECT]


def held_out(run: Run, found: Change) -> Table:
    """Compare the run's two evaluations."""
    base, final = run.base or {}, run.final or {}
    ks = [key for key in base if key.startswith("pass@") and key != "pass@1" and key in final]
    lengths = [round(of["mean_length"], 2) for of in (base, final)]
    rows = [
        ("pass@1", percent(found.before.value), percent(found.after.value), points(found.difference.value)),
        ("95 % interval", *(span(of.interval) for of in (found.before, found.after, found.difference))),
        *((key, percent(base[key]), percent(final[key]), points(final[key] - base[key])) for key in ks),
        ("mean length, tokens", *(decimal(length, 2) for length in lengths), signed(lengths[1] - lengths[0], 2)),
    ]
    if run.before and run.after:
        rows.append(_counted(run, "cut off at the limit", lambda row: row["finish_reason"] == "length"))
        rows.append(_counted(run, "unparsable", lambda row: row["status"] == Status.UNPARSABLE))
    config = run.config
    limit = config.get("eval.max_response_tokens") or config.get("rollout.max_response_tokens")
    note = (
        f"Changes of shares in points. Temperature {compact(config.get('eval.temperature'))}, top_p"
        f" {compact(config.get('eval.top_p'))}, at most {limit} tokens; the same problems, seeds and limits for both."
    )
    if base["problems"] != final["problems"]:
        note += (
            f" The base model was evaluated on {base['problems']} problems, the trained one on {final['problems']}:"
            " pass@1 and its interval are of the problems that both have, the other rows of all that each has."
        )
    return Table("Held-out problems", ("", "base", "trained", "change"), rows, note)


def _counted(run: Run, name: str, marked: Callable[[Row], bool]) -> Cells:
    marks = [[marked(row) for row in of] for of in (run.before, run.after)]
    return name, *(f"{sum(of)} of {len(of)}" for of in marks), points(fmean(marks[1]) - fmean(marks[0]))


def benchmarks(run: Run) -> list[Table]:
    """Return a table for each benchmark of launch/evaluate.py."""
    tables = []
    for benchmark in run.evaluation.get("benchmarks") or ():
        sides = {name: benchmark[side] for side, name in SIDES.items() if benchmark.get(side)}
        ks = sorted({int(key[5:]) for side in sides.values() for key in side if key.startswith("pass@")})
        rows: list[Cells] = []
        for name, side in sides.items():
            found = [side.get(f"pass@{k}") or {} for k in ks]
            rows.append((name, *(percent(each.get("value")) for each in found)))
            rows.append(("95 %", *(span(each.get("ci95")) for each in found)))
        caption = f"{benchmark['name']}, {benchmark.get('problems', '?')} problems"
        head = ("", *(f"pass@{k}" for k in ks))
        tables.append(Table(caption, head, rows, " ".join(_notes(run, benchmark, sides))))
    return tables


def _notes(run: Run, benchmark: Row, sides: dict[str, Row]) -> list[str]:
    """Say by how much pass@1 has changed, from how many samples, and under which protocol."""
    said, protocol = [], run.evaluation.get("protocol") or {}
    if paired := benchmark.get("paired"):
        ends, p = paired["ci95"], p_value(paired["p"])
        sure = f"95 % interval {span(ends)}; {p}" if ends else "too few problems to tell"
        said.append(f"pass@1 changed by {points(paired['difference'])} points ({sure}).")
    wanted = benchmark.get("n") or protocol.get("n", 0)
    for name, side in sides.items():
        if "n" in side:
            of = f" of {wanted}" if side["n"] < wanted else ""
            said.append(f"{name.capitalize()}: {side['n']}{of} samples each.")
    named = {"temperature": "temperature", "top_p": "top_p", "dtype": "format", "max_response_tokens": "most tokens"}
    parts = [f"{name} {compact(protocol[key])}" for key, name in named.items() if key in protocol]
    said += [f"Protocol: {', '.join(parts)}."] if parts else []
    filtered = [f"{number} {reason}" for reason, number in (benchmark.get("dropped") or {}).items()]
    return [*said, f"Filtered rows: {', '.join(filtered)}."] if filtered else said


def plasticity(run: Run) -> Table:
    """Return how far the policy is from the base model, in single numbers."""
    found = run.plasticity
    rows: list[Cells] = []
    if probe := found.get("probe_entropy"):
        change = f"{points(probe['change'])} %"
        rows.append(("entropy", f"{probe['before']:.3g} → {probe['after']:.3g} nats per token, {change}"))
    if found.get("kl_to_base") is not None:
        rows.append(("KL to the base model", f"{found['kl_to_base']:.3g} nats per token"))
    if ranks := found.get("effective_rank"):
        allowed = f" of {found['rank']}" if found.get("rank") else ""
        spread = f"{min(ranks.values()):.1f} to {max(ranks.values()):.1f}"
        rows.append(("effective rank", f"{fmean(ranks.values()):.1f}{allowed} on average, {spread}"))
    note = "Entropy and KL are exact, on fixed responses of the base model; the curves are of other samples."
    return Table("How far the model has moved", ("measure", "value"), rows, note)


def seconds(run: Run) -> Table:
    """Return the ledger's seconds of every actor, the longest activity first."""
    rows = [
        (actor if number == 0 else "", activity.replace("_", " "), time(spent), percent(spent / sum(times.values())))
        for actor, times in (run.ledger.get("seconds") or {}).items()
        for number, (activity, spent) in enumerate(sorted(times.items(), key=lambda item: -item[1]))
    ]
    return Table("Seconds by actor", ("actor", "activity", "time", "share"), rows)


def tokens(run: Run) -> Table:
    """Return the generated tokens by class, the largest first."""
    counts = run.ledger.get("counts") or {}
    classes = {name.removeprefix("tokens/"): n for name, n in counts.items() if name.startswith("tokens/") and n > 0}
    rows = [
        (WORDS["token_classes"].get(name, name.replace("_", " ")), count(n), percent(n / sum(classes.values())))
        for name, n in sorted(classes.items(), key=lambda item: -item[1])
    ]
    return Table("Generated tokens", ("class", "tokens", "share"), rows)


def events(run: Run) -> Table:
    keys = ("update", "event", "detail")
    rows = [tuple(shorten(str(event.get(key, ""))) for key in keys) for event in run.events[:SHOWN_EVENTS]]
    more = f"{len(run.events) - len(rows)} more are in events.jsonl." if len(run.events) > len(rows) else ""
    return Table("Events", keys, rows, more)


def settings(run: Run) -> dict[str, str]:
    """Return the settings that a reader asks for first, by their names in plain words."""
    known = {name: run.config.get(key) for name, key in WORDS["settings"].items()}
    known |= {"reward": formula(run.config), "budget": time(run.budget_s) if run.budget_s else ""}
    return {name: compact(value) for name, value in known.items() if value not in (None, "")}


def provenance(run: Run) -> dict[str, str]:
    """Return machine, time, commit and command of the run."""
    found = {"machine": run.summary.get("hardware") or "", **run.origin}
    found["started"] = str(found.get("started", "")).replace("T", " ").replace("+00:00", " UTC")
    return {name: str(found[name]) for name in ("machine", "started", "commit", "command") if found.get(name)}


def pairs(run: Run) -> list[Pair]:
    """Return a few samples before and after training, of every outcome in turn, changed ones first."""
    by_outcome = pairs_by_outcome(run.before, run.after)
    return [pair for each in zip_longest(*by_outcome.values()) for pair in each if pair][:SHOWN_PAIRS]


def pairs_by_outcome(before: Sequence[Row], after: Sequence[Row]) -> dict[str, list[Pair]]:
    """Return all samples that exist both before and after training, by their outcome."""
    first = _numbered(before)
    problems = problem_in({str(sample["prompt"]) for sample in after})
    by_outcome: dict[str, list[Pair]] = {name: [] for name in OUTCOMES.values()}
    for key, then in _numbered(after).items():
        if (earlier := first.get(key)) is not None:
            pair = Pair(problems[str(then["prompt"])], str(then["gold"]), earlier, then)
            by_outcome[pair.outcome].append(pair)
    return by_outcome


def _numbered(samples: Sequence[Row]) -> dict[tuple[str, int], Row]:
    """Return samples by problem and number."""
    numbers: defaultdict[str, int] = defaultdict(int)
    found: dict[tuple[str, int], Row] = {}
    for sample in samples:
        problem = str(sample["problem"])
        found[problem, numbers[problem]] = sample
        numbers[problem] += 1
    return found


def problem_in(prompts: set[str]) -> dict[str, str]:
    """Return each prompt without the lines that all begin and end with: instructions, examples, the chat template."""
    lines = {prompt: prompt.split("\n") for prompt in prompts}
    start = end = 0
    if len(prompts) > 1:
        start = _common(lines.values())
        end = _common(of_prompt[::-1] for of_prompt in lines.values())
    return {prompt: SPECIAL.sub("", "\n".join(of[start : len(of) - end])) for prompt, of in lines.items()}


def _common(texts: Iterable[list[str]]) -> int:
    """Count the lines that all texts begin with."""
    return sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*texts, strict=False)))

"""What a reader should know before trusting the result of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from launch.reports.history import Run
from launch.reports.verdict import ENDS
from launch.reports.wording import count, many, percent, time

LATE = 0.1
"""The last share of a run's updates, whose mean says how it was in the end."""

MUCH = 0.1
"""Truncated samples above this share, or samples without a verdict above a tenth of it, deserve a warning."""

OFTEN = 0.5
"""Share of the updates in which the canary can be expected to tell adapters apart."""

IDLE = 0.5
"""Groups without variance above this share: more than half of the generated tokens teach nothing."""


@dataclass(frozen=True)
class Flag:
    """level: good, note, warning or bad."""

    level: str
    title: str
    detail: str


def flags(run: Run) -> list[Flag]:
    """All that is known about how a run went, the worst first."""
    order = ("bad", "warning", "note", "good")
    return sorted(_flags(run), key=lambda flag: order.index(flag.level))


def _flags(run: Run) -> Iterator[Flag]:
    yield _ending(run)
    yield from _budget(run)
    yield from _canary(run)
    yield from _collapse(run)
    yield from _verdicts(run)
    yield from _lengths(run)
    yield from _variance(run)
    yield from _evaluations(run)
    yield from _faults(run)


def late(run: Run, name: str) -> float | None:
    """Mean of a metric over the last tenth of the updates."""
    _, values = run.series(name)
    return fmean(values[-max(int(len(values) * LATE), 1) :]) if values else None


def total(run: Run, name: str) -> int:
    return int(sum(run.series(name)[1]))


def _ending(run: Run) -> Flag:
    levels = {"completed": "good", "budget_exhausted": "good", "interrupted": "warning", "unfinished": "warning"}
    reason = run.summary.get("reason") or "no summary.json was written"
    ended = f"The run {ENDS.get(run.status, run.status)}"
    return Flag(levels.get(run.status, "bad"), ended, f"{reason}; {many(len(run.rows), 'update')}")


def _budget(run: Run) -> Iterator[Flag]:
    if budget := run.summary.get("budget_s"):
        used = f"{time(run.spent_s)} of {time(budget)}, {percent(run.spent_s / budget, 0)}"
        if run.spent_s > budget:
            yield Flag("warning", "The budget was overrun", used)
        else:
            yield Flag("good", "The budget was kept", used)


def _canary(run: Run) -> Iterator[Flag]:
    updates, decided = run.series("canary/decided")
    if not updates:
        return
    share = f"could tell in {percent(fmean(decided), 0)} of the updates"
    if not any(decided):
        detail = "the policy never moved far enough from the base model for the probe to tell its adapter from none"
        yield Flag("warning", "The canary stayed undecided", detail)
    else:
        first = updates[decided.index(1.0)]
        level = "good" if fmean(decided) >= OFTEN else "note"
        yield Flag(level, "The rollouts used the right adapter", f"the canary {share}, first in update {first}")


def _collapse(run: Run) -> Iterator[Flag]:
    found = [event for event in run.events if str(event.get("event", "")).startswith("collapse")]
    if found:
        first = found[0]
        yield Flag("warning", f"{many(len(found), 'sign')} of collapse", f"update {first['update']}: {first['detail']}")
    elif run.rows:
        yield Flag("good", "No sign of collapse", "entropy, length, reward and KL stayed within their bands")


def _verdicts(run: Run) -> Iterator[Flag]:
    kinds = {"timeout": "verdicts timed out", "crash": "verdicts crashed"}
    judged = sum(total(run, f"verify/{kind}") for kind in ("correct", "wrong", "unparsable", *kinds))
    for kind, words in kinds.items():
        if number := total(run, f"verify/{kind}"):
            level = "warning" if number > judged * MUCH / 10 else "note"
            yield Flag(level, f"{count(number)} {words}", f"of {count(judged)}")


def _lengths(run: Run) -> Iterator[Flag]:
    truncated = late(run, "completion/truncated")
    if truncated is not None:
        limit = run.config.get("rollout.max_response_tokens")
        where = f"in the last updates, at the limit of {limit} tokens"
        level = "warning" if truncated > MUCH else "good"
        yield Flag(level, f"{percent(truncated)} of the responses were cut off", where)


def _variance(run: Run) -> Iterator[Flag]:
    idle = late(run, "groups/zero_variance")
    if idle is not None and idle > IDLE:
        detail = "in the last updates: their samples all earned the same, from which nothing is learned"
        yield Flag("note", f"{percent(idle, 0)} of the groups had no variance", detail)


def cut(run: Run) -> str:
    """By how much the final evaluation is smaller than it was to be; empty if it is not."""
    final, asked = run.final, run.config.get("eval.n")
    if not final:
        return ""
    problems = (run.base or final)["problems"]
    parts = [f"{final['problems']} of {many(problems, 'problem')}"] if final["problems"] < problems else []
    parts += [f"{many(final['n'], 'sample')} a problem instead of {asked}"] if asked and final["n"] < asked else []
    return ", ".join(parts)


def _evaluations(run: Run) -> Iterator[Flag]:
    asked = run.config.get("eval.n")
    if run.base and asked and run.base["n"] < asked:
        detail = f"{many(run.base['n'], 'sample')} a problem instead of {asked}"
        yield Flag("note", "The evaluation of the base model was cut short", detail)
    if short := cut(run):
        yield Flag("note", "The final evaluation was cut short by the budget", short)
    if run.overlaps:
        detail = "data.overlap=report_only keeps them, and held-out results may flatter; see problems-left-out.jsonl"
        yield Flag("warning", f"The held-out set overlaps {many(run.overlaps, 'training problem')}", detail)
    if run.foreign:
        detail = f"evaluation/ in its folder is of {run.foreign}, which is not of this run"
        yield Flag("note", "Benchmarks beside the run are left out", detail)


def _faults(run: Run) -> Iterator[Flag]:
    counts = run.ledger.get("counts") or {}
    deaths = {name.removeprefix("deaths/"): n for name, n in counts.items() if name.startswith("deaths/")}
    rollbacks = sum(event.get("event") == "collapse, rolled back" for event in run.events)
    for name, number in deaths.items():
        yield Flag("warning", f"{many(number, 'death')} survived", f"of the {name}; events.jsonl says why")
    resumed = run.restores - deaths.get("learner", 0) - rollbacks
    if resumed > 0:
        yield Flag("note", f"Resumed {'once' if resumed == 1 else f'{resumed} times'}", "from a checkpoint")
    if skipped := counts.get("updates/skipped", 0):
        yield Flag("warning", f"{many(skipped, 'update')} skipped", "loss or gradient was not finite")
    if abandoned := counts.get("updates/abandoned", 0):
        yield Flag("note", f"{many(abandoned, 'update')} made again", "after a return to a checkpoint")
    for name, number in counts.items():
        if name.startswith("warnings/"):
            yield Flag("warning", f"{name.removeprefix('warnings/').capitalize()} ran low", many(number, "warning"))
    refused = sum(event.get("event") == "checkpoint refused" for event in run.events)
    if refused:
        yield Flag("warning", f"{many(refused, 'checkpoint')} refused", "damaged or not of this run")
    oldest = max(run.series("staleness/max")[1], default=0.0)
    if (bound := run.config.get("learner.max_staleness")) is not None and run.rows:
        level = "good" if oldest <= bound else "bad"
        yield Flag(level, f"Groups were at most {oldest:.0f} versions old", f"allowed: {bound}")

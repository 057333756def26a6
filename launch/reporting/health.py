"""What a reader should know before trusting the result of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from actors.storage.run_record import FINISHED
from launch.reporting.history import Run
from launch.reporting.wording import WORDS, count, many, percent, time

LATE = 0.1
"""The last share of a run's updates, whose mean says how it was in the end."""

MUCH = 0.1
"""Truncated samples above this share, or samples without a verdict above a tenth of it, deserve a warning."""

OFTEN = 0.5
"""Share of the updates in which the canary can be expected to tell adapters apart."""

NO_COLLAPSE = "length, reward and KL stayed within their bands, and entropy did not fall without a gain in reward"

IDLE = 0.5
"""Groups without variance above this share: more than half of the generated tokens teach nothing."""

BEHIND = 0.5
"""Share of the planned updates below which a run is far behind its plan."""

SLOWER = 1.5
"""Times as long as planned that explain why a run is behind."""

RESOURCES = ("disk", "shared memory", "memory")
"""What `warnings/…` of the ledger may count as low; others are trackers, whose lost calls it counts."""

ENDINGS = {"completed": "good", "budget_exhausted": "good", "interrupted": "warning", "unfinished": "warning"}
"""Level of a run's status; bad for any other."""

LEVELS = ("bad", "warning", "note", "good")


@dataclass(frozen=True)
class Flag:
    """Something to know about a run. level: one of `LEVELS`."""

    level: str
    title: str
    detail: str


def flags(run: Run) -> list[Flag]:
    """Return all that is known about how a run went, the worst first."""
    found = [*_course(run), *_behind(run), *_mismatch(run), *_samples(run), *_evaluations(run), *_faults(run)]
    return sorted(found, key=lambda flag: LEVELS.index(flag.level))


def behind(run: Run) -> str:
    """Say how far a run that has ended by itself is behind its plan, as 1 of 15 planned updates; empty if it is not far
    behind, or nothing was planned.
    """
    planned = (run.origin.get("planned") or {}).get("updates") or run.config.get("budget.updates") or 0
    if run.status not in FINISHED or len(run.rows) >= BEHIND * planned:
        return ""
    return f"{len(run.rows)} of {planned:,} planned updates"


def _behind(run: Run) -> Iterator[Flag]:
    """Warn of a run far behind its plan, and say what took longer, or what else took most of its time."""
    if not (said := behind(run)):
        return
    planned, spent = run.origin.get("planned") or {}, (run.ledger.get("seconds") or {}).get("run") or {}
    took = {
        "an update": (spent.get("training", 0.0) / max(len(run.rows), 1), planned.get("update_s")),
        "the start": (spent.get("start", 0.0) + spent.get("starting", 0.0), planned.get("start_s")),
    }
    why = [
        f"{part} took {time(seconds)}, not {time(expected)}"
        for part, (seconds, expected) in took.items()
        if expected and seconds > SLOWER * expected
    ]
    if not why and spent:
        most = max(spent, key=lambda activity: float(spent[activity]))
        why = [f"most of the time, {time(spent[most])}, went into {most.replace('_', ' ')}"]
    yield Flag("warning", f"It made {said}", "; ".join(why) or "why was not recorded")


def _late(run: Run, name: str) -> float:
    """Return the mean of a metric over the last tenth of the updates; 0 if it is unknown."""
    _, values = run.series(name)
    return fmean(values[-max(int(len(values) * LATE), 1) :]) if values else 0.0


def in_words(text: str) -> str:
    """Return a sentence about a metric with its name in words where it has one."""
    for metric, name in WORDS["metrics"].items():
        text = text.replace(metric, name)
    return text


def _course(run: Run) -> Iterator[Flag]:
    """Tell how the run ended, whether it kept its budget and used its adapter, and whether the policy collapsed."""
    reason = run.summary.get("reason") or "no summary.json was written"
    ended = f"The run {WORDS['endings'].get(run.status, run.status)}"
    level = "warning" if behind(run) else ENDINGS.get(run.status, "bad")
    yield Flag(level, ended, f"{reason}; {many(len(run.rows), 'update')}")
    if budget := run.summary.get("budget_s"):
        level, kept = ("warning", "overrun") if run.spent_s > budget else ("good", "kept")
        used = f"{time(run.spent_s)} of {time(budget)}, {percent(run.spent_s / budget, 0)}"
        yield Flag(level, f"The budget was {kept}", used)
    updates, decided = run.series("canary/decided")
    if any(decided):
        level = "good" if fmean(decided) >= OFTEN else "note"
        first = updates[decided.index(1.0)]
        detail = f"the adapter check could tell in {percent(fmean(decided), 0)} of the updates, first in update {first}"
        yield Flag(level, "The rollouts used the right adapter", detail)
    elif decided:
        detail = "the policy never moved far enough from the base model for the probe to tell its adapter from none"
        yield Flag("warning", "The adapter check stayed undecided", detail)
    if found := [event for event in run.events if str(event.get("event", "")).startswith("collapse")]:
        detail = f"update {found[0]['update']}: {in_words(str(found[0]['detail']))}"
        yield Flag("warning", f"{many(len(found), 'sign')} of collapse", detail)
    elif run.rows:
        yield Flag("good", "No sign of collapse", NO_COLLAPSE)


def _mismatch(run: Run) -> Iterator[Flag]:
    """Warn where the samples were not those of the policy that learned from them."""
    if found := [event for event in run.events if event.get("event") == "mismatch"]:
        detail = (
            f"update {found[0]['update']}: {found[0]['detail']}, so that few tokens decided over whole updates; lower "
            "learner.max_staleness or learner.learning_rate"
        )
        yield Flag("warning", "The samples were far from the policy that learned from them", detail)


def _samples(run: Run) -> Iterator[Flag]:
    """Tell what became of the samples that were trained on."""
    kinds = ("correct", "wrong", "unparsable", "timeout", "crash")
    samples = {kind: int(sum(run.series(f"verify/{kind}")[1])) for kind in kinds}
    for kind, words in (("timeout", "verdicts timed out"), ("crash", "verdicts crashed")):
        if number := samples[kind]:
            level = "warning" if number > sum(samples.values()) * MUCH / 10 else "note"
            yield Flag(level, f"{count(number)} {words}", f"of {count(sum(samples.values()))}")
    if run.series("completion/truncated")[1]:
        truncated = _late(run, "completion/truncated")
        level = "warning" if truncated > MUCH else "good"
        where = f"in the last updates, at the limit of {run.config.get('rollout.max_response_tokens')} tokens"
        yield Flag(level, f"{percent(truncated)} of the responses were cut off", where)
    if complaints := [event for event in run.events if event.get("event") == "reward function failed"]:
        number = (run.ledger.get("counts") or {}).get("rewards/failed", len(complaints))
        yield Flag("warning", f"{many(number, 'sample')} without a reward", str(complaints[0]["detail"]))
    idle = _late(run, "groups/zero_variance")
    if idle > IDLE:
        detail = "in the last updates: their samples all earned the same, from which nothing is learned"
        yield Flag("note", f"{percent(idle, 0)} of the groups had no variance", detail)


def cut(run: Run) -> str:
    """Say by how much the final evaluation is smaller than it was to be; empty if it is not."""
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
    """Tell what the run has survived."""
    counts = run.ledger.get("counts") or {}
    events = [event.get("event") for event in run.events]
    deaths = {name.removeprefix("deaths/"): n for name, n in counts.items() if name.startswith("deaths/")}
    for name, number in deaths.items():
        yield Flag("warning", f"{many(number, 'death')} survived", f"of the {name}; events.jsonl says why")
    restarts = sum(deaths.get(name, 0) for name in ("learner", "coordinator"))
    resumed = run.restores - restarts - events.count("collapse, rolled back")
    if resumed > 0:
        yield Flag("note", f"Resumed {'once' if resumed == 1 else f'{resumed} times'}", "from a checkpoint")
    if skipped := counts.get("updates/skipped", 0):
        yield Flag("warning", f"{many(skipped, 'update')} skipped", "loss or gradient was not finite")
    if abandoned := counts.get("updates/abandoned", 0):
        yield Flag("note", f"{many(abandoned, 'update')} made again", "after a return to a checkpoint")
    for name, number in counts.items():
        if name == "warnings/look failed":
            yield Flag("warning", "The host could not be looked at", many(number, "time"))
        elif (of := name.removeprefix("warnings/")) in RESOURCES:
            yield Flag("warning", f"{of.capitalize()} ran low", many(number, "warning"))
        elif of != name:
            yield Flag(
                "warning", f"{of} has lost {many(number, 'call')}", "of what it was to show; events.jsonl says why"
            )
    if refused := events.count("checkpoint refused"):
        yield Flag("warning", f"{many(refused, 'checkpoint')} refused", "damaged or not of this run")
    bound = run.config.get("learner.max_staleness")
    if bound is not None and run.rows:
        oldest = max(run.series("staleness/max")[1], default=0.0)
        level = "good" if oldest <= bound else "bad"
        yield Flag(level, f"Groups were at most {many(round(oldest), 'version')} old", f"allowed: {bound}")

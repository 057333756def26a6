"""Lists warnings and checks that a reader should know before trusting the result of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from microbudget_rl.actors.coordinator.rules.way_back import EARLY_UPDATES, LEAST_ENTROPY
from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.results import Results
from microbudget_rl.actors.storage.documents import Event, EventKind
from microbudget_rl.actors.storage.run_record import BEHIND, FINISHED
from microbudget_rl.launch.reporting.wording import WORDS, count, many, percent, time
from microbudget_rl.rewards.problems.loading import OVERLAP_KEPT

LATE = 0.1
"""Fraction of last updates whose mean describes the end of a run."""

MUCH = 0.1
"""Fraction of truncated samples above which there is a warning; for samples without a verdict, a tenth of it."""

OFTEN = 0.5
"""Fraction of the updates in which the adapter check should be decisive."""

IDLE = 0.5
"""Fraction of groups with zero variance above which about half of the generated tokens are useless."""

FROZEN = 0.15
"""Fraction of problems without a right sample above which a policy that is certain counts as frozen."""

SLOWER = 1.5
"""Ratio of measured to planned seconds above which a part of a run explains a delay."""

ENDINGS = {"completed": "good", "budget_exhausted": "good", "interrupted": "warning", "unfinished": "warning"}
"""Status of a run → level; bad for any other status."""

LEVELS = ("bad", "warning", "note", "good")


@dataclass(frozen=True)
class Flag:
    """A warning or a check of a run. level: one of `LEVELS`."""

    level: str
    title: str
    detail: str


def flags(run: Results) -> list[Flag]:
    """Return all flags of a run, the worst first."""
    flags = [*_course(run), *_behind(run), *_samples(run), *_evaluations(run), *_faults(run)]
    return sorted(flags, key=lambda flag: LEVELS.index(flag.level))


def events(run: Results, *kinds: EventKind) -> list[Event]:
    return [event for event in run.events if event.kind in kinds]


def behind(run: Results) -> str:
    """Say how far behind its plan a run ended, such as "1 of 15 planned updates"; empty if it is not far behind."""
    planned = run.origin.planned.updates if run.origin.planned else run.config.get("budget.updates") or 0
    if run.summary.status not in FINISHED or len(run.rows) >= BEHIND * planned:
        return ""
    return f"{len(run.rows)} of {planned:,} planned updates"


def _behind(run: Results) -> Iterator[Flag]:
    """Warn of a run far behind its plan, and name the parts that took longer than planned."""
    if not (said := behind(run)):
        return
    took, spent = dict[str, tuple[float, float]](), run.summary.ledger.seconds.get("run", {})
    if planned := run.origin.planned:
        took["an update"] = spent.get("training", 0.0) / max(len(run.rows), 1), planned.update_s
        took["the start"] = run.summary.ledger.start_s, planned.start_s
    late = {part: (now, then) for part, (now, then) in took.items() if then and now > SLOWER * then}
    why = [f"{part} took {time(now)}, not {time(then)}" for part, (now, then) in late.items()]
    yield Flag("warning", f"It made {said}", "; ".join(why) or "the table of seconds has where the time went")


def frozen(run: Results) -> float:
    """Return the fraction of the last problems that no sample solves, if the policy has become certain; else 0."""
    _, entropy = run.series("policy/entropy")
    share = _late(run, "errors/unanimous") * (1 - _late(run, "reward/accuracy"))
    certain = entropy and _late(run, "policy/entropy") < LEAST_ENTROPY * fmean(entropy[:EARLY_UPDATES])
    return share if certain and share > FROZEN else 0.0


def _late(run: Results, name: str) -> float:
    """Return the mean of a metric over the last tenth of the updates; 0 if it is unknown."""
    _, values = run.series(name)
    return fmean(values[-max(int(len(values) * LATE), 1) :]) if values else 0.0


def _course(run: Results) -> Iterator[Flag]:
    """Report the end, the budget, the adapter check, signs of collapse and the mismatch of a run."""
    summary = run.summary
    ended = f"The run {WORDS['endings'].get(summary.status, summary.status)}"
    level = "warning" if behind(run) else ENDINGS.get(summary.status, "bad")
    reason = summary.reason or "no summary.json was written"
    yield Flag(level, ended, f"{reason}; {many(len(run.rows), 'update')}")
    if budget := summary.budget_s:
        level, outcome = ("warning", "overrun") if summary.spent_s > budget else ("good", "kept")
        used = f"{time(summary.spent_s)} of {time(budget)}, {percent(summary.spent_s / budget, 0)}"
        yield Flag(level, f"The budget was {outcome}", used)
    updates, decided = run.series("adapter_check/decided")
    if any(decided):
        level = "good" if fmean(decided) >= OFTEN else "note"
        first = updates[decided.index(1.0)]
        detail = f"the adapter check was decisive in {percent(fmean(decided), 0)} of the updates, first in {first}"
        yield Flag(level, "The rollouts used the right adapter", detail)
    elif decided:
        detail = "on its prompts, the policy never differed from the base model beyond the noise"
        yield Flag("warning", "The adapter check stayed undecided", detail)
    signs = {EventKind.COLLAPSE: "sign of collapse", EventKind.ROLLED_BACK: "return to an earlier version"}
    for kind, sign in signs.items():
        if found := events(run, kind):
            detail = f"update {found[0].update}: {found[0].detail}"
            for metric, name in WORDS["metrics"].items():
                detail = detail.replace(metric, name)
            yield Flag("warning", many(len(found), sign), detail)
    if run.rows and not events(run, *signs):
        yield Flag("good", "No sign of collapse", "the reward did not fall far below its recent past")
    if share := frozen(run):
        detail = "the policy became certain before it met a right answer; a higher rollout.temperature explores more"
        yield Flag(
            "warning", f"{percent(share, 0)} of the problems are answered wrongly, the same way each time", detail
        )
    if lowered := [outcome for outcome in run.series("learner/rate_kept")[1] if outcome < 1]:
        detail = f"in {many(len(lowered), 'update')} of {len(run.rows)}, to a median of {percent(median(lowered), 0)}"
        yield Flag("note", "learner.max_kl lowered the learning rate", detail)
    if found := events(run, EventKind.MISMATCH):
        detail = f"update {found[0].update}: {found[0].detail}; lower learner.max_staleness or learner.learning_rate"
        yield Flag("warning", "The samples were far from the policy that learned from them", detail)


def _samples(run: Results) -> Iterator[Flag]:
    verdicts = {status: int(sum(run.series(f"verify/{status}")[1])) for status in Status}
    for status, words in {Status.TIMEOUT: "timed out", Status.CRASH: "crashed"}.items():
        if number := verdicts[status]:
            level = "warning" if number > sum(verdicts.values()) * MUCH / 10 else "note"
            yield Flag(level, f"{count(number)} verdicts {words}", f"of {count(sum(verdicts.values()))}")
    if run.series("response/truncated")[1]:
        truncated = _late(run, "response/truncated")
        level = "warning" if truncated > MUCH else "good"
        where = f"in the last updates, at the limit of {run.config.get('rollout.max_response_tokens')} tokens"
        yield Flag(level, f"{percent(truncated)} of the responses were truncated", where)
    if taught := events(run, EventKind.IMITATED):
        yield Flag("note", "Warm start", taught[-1].detail)
    if complaints := events(run, EventKind.REWARD_FAILED):
        number = run.summary.ledger.counts.get("rewards/failed", len(complaints))
        yield Flag(
            "warning", f"{many(number, 'sample')} without a reward", "; ".join(each.detail for each in complaints)
        )
    idle = _late(run, "groups/zero_variance")
    if idle > IDLE:
        detail = "all samples of such a group earned the same reward, so that it has no gradient"
        yield Flag("note", f"{percent(idle, 0)} of the groups in the last updates had zero variance", detail)


def _evaluations(run: Results) -> Iterator[Flag]:
    most, n = run.eval.base.problems if run.eval.base else 0, run.config.get("eval.n") or 0
    for name, scores in (("base", run.eval.base), (run.start, run.eval.warm), ("trained", run.eval.final)):
        if scores and (scores.problems < most or scores.n < n):
            made = f"{many(scores.problems, 'problem')} with {many(scores.n, 'sample')} each, not {most} with {n}"
            yield Flag("note", f"The evaluation of the {name} model was cut short", made)
    if overlaps := run.filtered.get(OVERLAP_KEPT, 0):
        detail = "data.contamination=report_only keeps them: results may be too good; see problems-left-out.jsonl"
        yield Flag("warning", f"The held-out set overlaps {many(overlaps, 'training problem')}", detail)


def _faults(run: Results) -> Iterator[Flag]:
    for name, number in run.counts("deaths/").items():
        yield Flag("warning", f"{many(number, 'failure')} survived", f"of the {name}; events.jsonl says why")
    updates = run.counts("updates/")
    if skipped := updates.get("skipped", 0):
        yield Flag("warning", f"{many(skipped, 'update')} skipped", "loss or gradient was not finite")
    if abandoned := updates.get("abandoned", 0):
        yield Flag("note", f"{many(abandoned, 'update')} repeated", "after a return to a checkpoint")
    for name, number in run.counts("warnings/").items():
        yield Flag("warning", f"{name}: {many(number, 'warning')}", "events.jsonl says why")
    for kind, level in ((EventKind.CHECK_FAILED, "bad"), (EventKind.FALLBACK, "warning")):
        for what, detail in dict.fromkeys((event.event, event.detail) for event in events(run, kind)):
            yield Flag(level, what[:1].upper() + what[1:], detail)
    if refused := len(events(run, EventKind.CHECKPOINT_REFUSED)):
        yield Flag("warning", f"{many(refused, 'checkpoint')} refused", "damaged or not of this run")
    bound = run.config.get("learner.max_staleness")
    if bound is not None and run.rows:
        oldest = max(run.series("staleness/max")[1], default=0.0)
        level = "good" if oldest <= bound else "bad"
        yield Flag(level, f"The staleness was at most {many(round(oldest), 'version')}", f"allowed: {bound}")

"""Every run compares measured with predicted times, and keeps the ratios for the next plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev

from actors.formats import duration
from actors.storage.run_record import RunRecord
from launch.hardware.machine import Machine
from launch.plan.estimate import Pace
from launch.plan.measurements import keep, recipe_of
from launch.plan.plan import make_plan
from launch.plan.time import UNMEASURED, Calibration, Workload

Metrics = Mapping[str, float]
"""A row of metrics.jsonl."""

WARM_UP = 2
"""Number of first updates that are not measured: they use kernels for the first time."""

ENOUGH = WARM_UP + 4
"""Number of updates after which a run can be measured."""

LEARNING = ("update", "adapter_check", "sync", "checkpoint")
"""Names in the ledger of the learner's activities in an update."""

LEAST_VARIED = 0.05
"""Smallest fraction of groups with a gradient: a plan divides by it."""

LEAST_FACTOR = 0.05
"""Smallest factor of a calibration: a shorter time is lost in the noise of other parts."""


def pace_of(rows: Sequence[Metrics], skipped: int = WARM_UP) -> Pace:
    """Return the pace over rows of metrics.jsonl after the skipped ones."""
    first, last, count = rows[skipped - 1], rows[-1], len(rows) - skipped

    def passed(*names: str) -> float:
        return sum(last.get(name, 0.0) - first.get(name, 0.0) for name in names) / count

    return Pace(
        update_s=passed("budget/spent_s"),
        generate_s=passed("ledger/rollouts/generate"),
        learn_s=passed(*(f"ledger/learner/{activity}" for activity in LEARNING)),
    )


def learn_from(folder: Path, machine: Machine) -> str:
    """Measure the run in a folder, keep the result for the next plan, and say how long its updates have taken.

    Return an empty text if there are too few updates or the machine's rates are unknown.
    """
    run = RunRecord(folder)
    rows = [row.metrics for row in run.rows()]
    if not machine.rates or len(rows) < ENOUGH:
        return ""
    keep(measure(run, machine), run.config(), machine)
    return f"Measured for the next plan: {duration(pace_of(rows).update_s)} per update so far"


def measure(run: RunRecord, machine: Machine) -> Calibration:
    """Return the calibration of a machine from a run of at least ENOUGH updates on it.

    A part that the run did not use keeps its factor of 1.
    """
    config, rows = run.config(), [row.metrics for row in run.rows()]
    measured, pace = rows[WARM_UP:], pace_of(rows)
    workload = _workload(run, measured)
    plan = make_plan(config, machine, replace(UNMEASURED, workload=workload))
    costs, expected, count, steps = plan.costs, plan.estimate, len(measured), config.algorithm.steps_per_batch
    assert costs is not None
    assert expected is not None

    def total(name: str) -> float:
        return sum(row[name] for row in measured)

    varied = config.learner.problems_per_update * (count - total("groups/zero_variance"))
    trained = total("tokens/trained") + varied * workload.fresh
    passes = total("time/learn") - total("time/step")  # one pass over the batch: later passes are part of the step
    learn_s = expected.contended * costs.learn_s / steps / len(plan.placement.learners)
    seconds = {  # measured and predicted, for the same amount of work
        "decode": (pace.generate_s, expected.generate_s),
        "learn": (passes, trained * learn_s),
        "update": (total("time/step") - (steps - 1) * passes, count * costs.update_s),
        "sync": (total("time/sync"), count * costs.sync_s),
        "verify": (total("time/verify"), count * costs.verify_s * config.rollout.samples_per_problem),
    }
    factors = {part: max(took / planned, LEAST_FACTOR) for part, (took, planned) in seconds.items() if took and planned}
    return Calibration(
        **factors,
        start_s=(ledger.start_s or None) if (ledger := run.ledger()) else None,
        workload=workload,
        of=f"{count} updates of {config.model.path} at rank {config.lora.rank}",
    )


def _workload(run: RunRecord, rows: Sequence[Metrics]) -> Workload:
    samples = [sample for update in run.sampled("update")[WARM_UP:] for sample in run.samples(update)]
    lengths, prompts = [sample.tokens for sample in samples], [sample.prompt for sample in samples]
    prompt = fmean(row["prompt/mean_length"] for row in rows)
    shared = sum(1 for _ in takewhile(lambda characters: len(set(characters)) == 1, zip(*prompts, strict=False)))
    return Workload(
        prompt=prompt,
        fresh=prompt * (1 - shared / max(map(len, prompts))),
        response=fmean(row["response/mean_length"] for row in rows),
        spread=pstdev(lengths) / fmean(lengths),
        varied=min(max(1 - fmean(row["groups/zero_variance"] for row in rows), LEAST_VARIED), 1.0),
        recipe=recipe_of(run.config()),
    )

"""What a run tells about the machine it ran on, so that the next plan knows better."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from omegaconf import OmegaConf

from actors.storage.run_record import RunRecord
from conf.schema import Config
from launch.plan.calibration import Calibration, keep
from launch.plan.costs import Workload
from launch.plan.forecast import between, forecast, middle, updates_in_budget
from launch.plan.machine import Machine
from launch.plan.plan import Plan, duration, make_plan
from launch.plan.simulation import simulate

WARM_UP = 2
"""First updates, in which kernels are used for the first time: they are left out."""

ENOUGH = WARM_UP + 4
"""Updates after which a run can be measured."""

LEAST_VARIED = 0.05
"""Of the groups: with none that differ a run would end."""

FITTINGS = 4
"""Simulations that what depends on waits and on shared processors is fitted by."""

LEAST = 0.05
"""Of what steps and the canary's check were promised to take: below it, they are lost in what is around them."""


def learn_from(folder: Path, machine: Machine) -> str:
    """Measure a run of this machine, keep what was found for the next plan, and say what this run will come to; empty
    while there is not enough of it, or where nothing is known of the machine's rates.
    """
    if not machine.rates or len(RunRecord(folder).rows()) < ENOUGH:
        return ""
    config, found = read_config(folder), measure(folder, machine)
    keep(found, config, machine)
    plan = make_plan(config, machine, found)
    expected = forecast(plan)
    return (
        f"Measured: an update takes about {duration(expected.update_s)}, which makes about"
        f" {updates_in_budget(plan, expected):,} in the budget"
    )


def measure(folder: Path, machine: Machine) -> Calibration:
    """What a run on this machine says about it, from the files in its folder, at least ENOUGH updates of them.

    Swaps and checkpoints are compared with what their sizes promise. How full the engines were while they decoded, and
    how much of a shared processor each half had, is not in the files: decoding, learning and the canary's check are
    made so much slower or faster that in a simulation they take as long as in the run.
    """
    rows = RunRecord(folder).rows()
    measured = rows[WARM_UP:]
    config = read_config(folder)
    samples = config.rollout.samples_per_problem
    kept = _samples(folder)
    lengths, prompts = [row["tokens"] for row in kept], [row["prompt"] for row in kept]
    prompt = fmean(row["prompt/mean_length"] for row in measured)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    shared = sum(1 for _ in alike) / max(map(len, prompts))
    workload = Workload(
        prompt=prompt,
        fresh=(1 - shared) * prompt,
        response=fmean(row["completion/mean_length"] for row in measured),
        spread=pstdev(lengths) / fmean(lengths),
        varied=min(max(1 - fmean(row["groups/zero_variance"] for row in measured), LEAST_VARIED), 1.0),
    )
    plan = make_plan(config, machine, Calibration(workload=workload))
    costs = plan.costs
    assert costs is not None
    saved = rows[-1].get("ledger/learner/checkpoint", 0.0)
    passes = _passes(measured, plan)
    found = Calibration(
        learn=passes or 1.0,
        update=_steps(measured, plan),
        swap=_total(measured, "time/sync") / (len(measured) * costs.swap_s),
        checkpoint=saved / costs.checkpoint_s / (1 + len(rows) // config.checkpoint.every) if saved else 1.0,
        verify_s=fmean(row["time/verify"] for row in measured) / samples,
        workload=workload,
        of=f"{len(measured)} updates of {config.model.path} at rank {config.lora.rank}",
    )
    real = between(rows, WARM_UP)
    for _ in range(FITTINGS):
        run, skipped = middle(make_plan(config, machine, found))
        settled = run.rows[skipped:]
        simulated = _passes(settled, plan)
        found = replace(
            found,
            decode=found.decode * real.generate_s / between(run.rows, skipped).generate_s,
            learn=found.learn * passes / simulated if passes and simulated else found.learn,
            update=found.update * _steps(measured, plan) / _steps(settled, plan),
            score=max(found.score + _scoring(measured, plan) - _scoring(settled, plan), LEAST),
        )
    return replace(found, start_s=_start(found, config, machine, real.start_s))


def _passes(rows: Sequence[dict[str, float]], plan: Plan) -> float:
    """Seconds that the learner took for the passes over these rows' batches, for each that the plan's sizes promise.
    All passes over a batch take as long as its first. 0 where no sample had a gradient.
    """
    assert plan.costs is not None
    groups, ranks = plan.config.learner.problems_per_update, len(plan.placement.learners)
    tokens = sum(
        row["tokens/trained"] + (1 - row["groups/zero_variance"]) * groups * row["prompt/mean_length"] for row in rows
    )
    first = _total(rows, "time/learn") - _total(rows, "time/step")
    return plan.config.algorithm.steps_per_batch * first / (tokens * plan.costs.learn_s / ranks) if tokens else 0.0


def _steps(rows: Sequence[dict[str, float]], plan: Plan) -> float:
    """The same of what comes after the passes: optimizer steps and publication."""
    assert plan.costs is not None
    later = plan.config.algorithm.steps_per_batch - 1
    rest = _total(rows, "time/step") - later * (_total(rows, "time/learn") - _total(rows, "time/step"))
    return max(rest / (len(rows) * plan.costs.update_s), LEAST)


def _scoring(rows: Sequence[dict[str, float]], plan: Plan) -> float:
    """The same of the canary, its waits for answers included."""
    assert plan.costs is not None
    tokens = plan.config.canary.problems * (plan.workload.prompt + plan.config.canary.tokens)
    return _total(rows, "time/canary") / (len(rows) * tokens * plan.costs.score_s)


def _start(found: Calibration, config: Config, machine: Machine, start_s: float) -> float:
    """Seconds before the first request with which a simulated run, its first evaluation included, starts as late."""
    config = copy.deepcopy(config)
    config.budget.hours, config.budget.minutes, config.budget.updates = 1e6, None, 1
    plan = make_plan(config, machine, replace(found, start_s=0.0))
    assert plan.costs is not None
    begun = simulate(plan.config, plan.costs, plan.workload, plan.placement, plan.at_once).rows[0]
    return max(start_s - begun["ledger/run/start"] - begun["ledger/run/starting"], 0.0)


def read_config(folder: Path) -> Config:
    """The configuration of the run in a folder."""
    merged = OmegaConf.merge(OmegaConf.structured(Config), RunRecord(folder).config())
    config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return config


def _total(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows)


def _samples(folder: Path) -> list[dict[str, Any]]:
    """Those that were kept of the measured updates."""
    run = RunRecord(folder)
    return [row for update in run.sampled_updates()[WARM_UP:] for row in run.samples(update)]

"""How far a machine is from the predicted times: measured by every run, kept for the next plan."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import TypeAdapter, ValidationError

from actors.formats import duration
from actors.storage.files import replace_text
from actors.storage.run_record import RunRecord
from conf.departed import without_departed
from conf.schema import Config
from conf.settings import build
from launch.hardware.machine import Machine
from launch.plan.forecast import Pace
from launch.plan.plan import Plan, make_plan
from launch.plan.time import UNMEASURED, Calibration, Workload

Row = dict[str, float]

KEPT = "calibration.json"
"""In the folder of all runs: what they have measured."""

WARM_UP = 2
"""First updates, left out because kernels are used for the first time."""

ENOUGH = WARM_UP + 4
"""Updates after which a run can be measured."""

LEAST_VARIED = 0.05
"""Smallest fraction of groups with something to learn from: a plan divides by it."""

LEAST = 0.05
"""Smallest factor: a part that takes less is lost in what is around it."""


def learn_from(folder: Path, machine: Machine) -> str:
    """Measure the run in a folder, keep the result for the next plan, and say how long its updates have taken.

    Empty while there are too few updates, or where the machine's rates are not known.
    """
    rows = RunRecord(folder).rows()
    if not machine.rates or len(rows) < ENOUGH:
        return ""
    config, found = read_config(RunRecord(folder)), measure(folder, machine)
    keep(found, config, machine)
    return f"Measured for the next plan: an update has taken {duration(Pace.between(rows, 1).update_s)} so far"


def measure(folder: Path, machine: Machine) -> Calibration:
    """Return what a run of at least ENOUGH updates says about its machine: measured seconds over predicted ones."""
    run = RunRecord(folder)
    config, rows = read_config(run), run.rows()
    measured = rows[WARM_UP:]
    workload = _workload(run, measured)
    of = f"{len(measured)} updates of {config.model.path} at rank {config.lora.rank}"
    plan = make_plan(config, machine, replace(UNMEASURED, workload=workload))
    predicted = _predicted(plan)
    factors: dict[str, Any] = {
        name: max(seconds / predicted[name], LEAST)
        for name, seconds in _seconds(rows, config, workload).items()
        if seconds and predicted[name]
    }
    found = replace(UNMEASURED, workload=workload, of=of, **factors)
    corrected = make_plan(config, machine, found).estimate
    assert corrected is not None
    score = (fmean(row["time/canary"] for row in measured) - corrected.waits_s) / corrected.scores_s
    start_s = Pace.between(rows, WARM_UP).start_s - corrected.evaluate_s
    return replace(found, score=max(score, LEAST), start_s=max(start_s, 0.0))


def _workload(run: RunRecord, rows: Sequence[Row]) -> Workload:
    samples = [sample for update in run.sampled_updates()[WARM_UP:] for sample in run.samples(update)]
    lengths, prompts = [sample["tokens"] for sample in samples], [sample["prompt"] for sample in samples]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    prompt = fmean(row["prompt/mean_length"] for row in rows)
    return Workload(
        prompt=prompt,
        fresh=prompt * (1 - sum(1 for _ in alike) / max(map(len, prompts))),
        response=fmean(row["completion/mean_length"] for row in rows),
        spread=pstdev(lengths) / fmean(lengths),
        varied=min(max(1 - fmean(row["groups/zero_variance"] for row in rows), LEAST_VARIED), 1.0),
    )


def _seconds(rows: Sequence[Row], config: Config, workload: Workload) -> Row:
    """Return the seconds behind each factor of a Calibration, per unit of its work; 0 where there was none."""

    def total(name: str) -> float:
        return sum(row[name] for row in rows[WARM_UP:])

    problems, count = config.learner.problems_per_update, len(rows) - WARM_UP
    trained = sum(
        row["tokens/trained"] + (1 - row["groups/zero_variance"]) * problems * workload.fresh for row in rows[WARM_UP:]
    )
    passes = total("time/learn") - total("time/step")  # over a batch once: the later passes are part of the step
    checkpoints = 1 + len(rows) // config.checkpoint.every
    return {
        "decode": Pace.between(rows, WARM_UP).generate_s,
        "learn": passes / trained if trained else 0.0,
        "update": max(total("time/step") - (config.algorithm.steps_per_batch - 1) * passes, 0.0) / count,
        "swap": total("time/sync") / count,
        "verify": total("time/verify") / count,
        "checkpoint": rows[-1].get("ledger/learner/checkpoint", 0.0) / checkpoints,
    }


def _predicted(plan: Plan) -> Row:
    """Return the plan's seconds for what `_seconds` returns."""
    costs, found = plan.costs, plan.estimate
    assert costs is not None
    assert found is not None
    steps = plan.config.algorithm.steps_per_batch
    return {
        "decode": found.generate_s,
        "learn": found.contended * costs.learn_s / steps / len(plan.placement.learners),
        "update": costs.update_s,
        "swap": costs.swap_s,
        "verify": costs.verify_s * plan.config.rollout.samples_per_problem,
        "checkpoint": costs.checkpoint_s,
    }


def read_config(run: RunRecord) -> Config:
    """Return the configuration of a run."""
    config: Config = build(Config, without_departed(run.config()))
    return config


def plan_measured(config: Config, machine: Machine, folder: Path | None = None) -> Plan:
    """Plan a run by what earlier runs on the machine have measured. folder: that of the runs, if not `run.folder`."""
    return make_plan(config, machine, recall(config, machine, folder))


def keep(calibration: Calibration, config: Config, machine: Machine) -> None:
    """Keep a measurement for the next plan with the same `run.folder`, in the place of the last one like it."""
    key = _machine_key(config, machine) + _lengths_key(config)
    file = kept_in(config)
    known = {other: found for other, found in _known(file).items() if other != key} | {key: asdict(calibration)}
    file.parent.mkdir(parents=True, exist_ok=True)  # the doctor measures before there is a run
    replace_text(file, json.dumps(known, indent=1) + "\n")


def recall(config: Config, machine: Machine, folder: Path | None = None) -> Calibration:
    """Return what was measured of a model on this machine in this dtype; its workload only with the same lengths. Of
    another machine the workload alone: how long answers are does not depend on it. folder: see `plan_measured`.
    """
    key = _machine_key(config, machine)
    kept = _known(folder / KEPT if folder else kept_in(config))
    known = {name: read for name, found in kept.items() if (read := _read(found)) and name.startswith(key)}
    if (measured := known.get(key + _lengths_key(config))) is not None:
        return measured
    if known:
        return replace(list(known.values())[-1], workload=None)
    model, lengths = f", {config.model.path} in ", f": {_lengths_key(config)}"
    elsewhere = [found for name, found in kept.items() if model in name and name.endswith(lengths)]
    measured = next((read for found in reversed(elsewhere) if (read := _read(found))), UNMEASURED)
    return replace(UNMEASURED, workload=measured.workload)


def _known(file: Path) -> dict[str, Any]:
    """Return all that was kept; nothing if the file cannot be read, since a plan can do without."""
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _read(entry: Any) -> Calibration | None:
    """Return an entry as this version writes it, else None."""
    try:
        return TypeAdapter(Calibration).validate_python(entry, extra="forbid")
    except ValidationError:
        return None


def kept_in(config: Config) -> Path:
    """Return the file of all that was measured: of the runs in a sweep's folder the one beside that."""
    folder = Path(config.run.folder)
    return (folder.parent if (folder / "sweep.json").exists() else folder) / KEPT


def _machine_key(config: Config, machine: Machine) -> str:
    """Name what decides how far a machine is from the predicted times, on a card with what is switched there."""
    units = "" if machine.gpus else f" × {len(machine.cores)}"
    switched = {
        "run.mps": config.run.mps,
        "plain kernels": not config.learner.fused_kernels,
        "vLLM's block sizes": not config.rollout.lora_kernel_sizes,
    }
    with_these = "".join(f" with {name}" for name, on in switched.items() if on and machine.gpus)
    return f"{machine.name}{units}, {config.model.path} in {config.model.dtype}{with_these}: "


def _lengths_key(config: Config) -> str:
    """Name what decides the lengths of prompts and answers."""
    return f"{config.data.source}, {config.rollout.max_response_tokens}"

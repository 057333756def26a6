"""Every run compares measured with predicted times, and keeps the ratios for the next plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import OnErrorOmit, TypeAdapter

from actors.formats import duration
from actors.models.files import known_pin
from actors.storage.documents import FormattedDocument
from actors.storage.files import read_document, write_document
from actors.storage.run_record import RunRecord
from conf.schema import Config
from conf.schema.run import MPS_PERCENTAGE
from conf.settings import changed
from launch.hardware.machine import Machine
from launch.plan.estimate import Pace
from launch.plan.plan import Plan, make_plan
from launch.plan.signal import best_workload, recipe_of
from launch.plan.time import UNMEASURED, Calibration, Workload

Metrics = Mapping[str, float]
"""A row of metrics.jsonl."""

KEPT = "calibration.json"
"""Name of the file with all measurements, in the folder of all runs."""

CALIBRATIONS = TypeAdapter(dict[str, OnErrorOmit[Calibration]])


class KeptCalibrations(FormattedDocument):
    """calibration.json. measurements: calibrations by machine, model and lengths; impossible ones are ignored."""

    measurements: dict[str, Any]


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
        score=factors.get("learn", 1.0),
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


def plan_measured(config: Config, machine: Machine, folder: Path | None = None) -> Plan:
    """Plan a run by the measurements of earlier runs. folder: the folder of those runs, if not `run.folder`.

    If run.nvidia_mps=auto has never been measured with MPS, measurements without it count: MPS may not work here.
    """
    plan = make_plan(config, machine)
    found = recall(plan.config, machine, folder)
    if not found.of and config.run.nvidia_mps == "auto":
        found = recall(changed(plan.config, {"run.nvidia_mps": "off"}), machine, folder)
    return plan if found == UNMEASURED else plan.again({}, calibration=found)


def keep(calibration: Calibration, config: Config, machine: Machine) -> None:
    """Keep a measurement for the next plan with the same `run.folder`; it replaces the last one of its kind.

    Raises BadInput if a file of that name is damaged or somebody else's.
    """
    key, file = _machine_key(config, machine) + _lengths_key(config), kept_in(config)
    known = _known(file)
    known.pop(key, None)  # the newest is the last
    known[key] = calibration
    file.parent.mkdir(parents=True, exist_ok=True)  # the doctor measures before there is a run
    write_document(file, KeptCalibrations(measurements=CALIBRATIONS.dump_python(known)))


def recall(config: Config, machine: Machine, folder: Path | None = None) -> Calibration:
    """Return the last measurement of a model on this machine in this dtype, with its workload only at the same lengths.

    From another machine, return only the workload: it does not depend on the machine. The doctor's signal replaces the
    workload of other recipes. folder: see `plan_measured`.
    """
    here, lengths = _machine_key(config, machine), _lengths_key(config)
    file = folder / KEPT if folder else kept_in(config)
    found = _measured(_known(file), config, here, lengths)
    return replace(found, workload=best_workload(found.workload, config, file.parent))


def _measured(known: Mapping[str, Calibration], config: Config, here: str, lengths: str) -> Calibration:
    if on_this := [found for key, found in known.items() if key.startswith(here)]:
        return known.get(here + lengths) or replace(on_this[-1], workload=None)
    model = f", {config.model.path} in "
    elsewhere = [found.workload for key, found in known.items() if model in key and key.endswith(f": {lengths}")]
    return replace(UNMEASURED, workload=elsewhere[-1] if elsewhere else None)


def _known(file: Path) -> dict[str, Calibration]:
    kept = read_document(file, KeptCalibrations)
    return CALIBRATIONS.validate_python(kept.measurements if kept else {})


def kept_in(config: Config) -> Path:
    """Return the file of all measurements; runs of a sweep share the file next to the sweep's folder."""
    folder = Path(config.run.folder)
    return (folder.parent if (folder / "sweep.json").exists() else folder) / KEPT


def _machine_key(config: Config, machine: Machine) -> str:
    """Name machine, model, dtype and, on a GPU, the switches that change its speed."""
    model = f"{config.model.path} in {config.model.dtype}"
    if not machine.gpus:
        return f"{machine.name} × {len(machine.cores)}, {model}: "
    percentage = config.run.nvidia_mps_percentage
    switches = {
        "run.nvidia_mps": config.run.mps,
        f"{percentage} % of the multiprocessors": config.run.mps and percentage != MPS_PERCENTAGE,
        "plain kernels": not config.learner.fused_kernels,
    }
    return f"{machine.name}, {model}{''.join(f' with {name}' for name, on in switches.items() if on)}: "


def _lengths_key(config: Config) -> str:
    """Name the model's files and the settings that decide the lengths of prompts and responses."""
    return f"{config.data.origin}, {config.rollout.max_response_tokens}, {known_pin(config.model)}"

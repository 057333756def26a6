"""What runs and the doctor have measured, kept for later plans in one file in the folder of all runs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import OnErrorOmit, TypeAdapter

from microbudget_rl.actors.evaluation.statistics import Mean
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.models.files import known_pin
from microbudget_rl.actors.storage.documents import FormattedDocument, SampleRow
from microbudget_rl.actors.storage.files import read_document, write_document
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.parsing import flatten, path_of
from microbudget_rl.conf.schema import Config, affecting, among
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.plan.plan import FILE, Plan, make_plan
from microbudget_rl.launch.plan.time import UNMEASURED, Calibration, Pace, Workload

KEPT = "measurements.json"
"""Name of the file."""

WARM_UP = 2
"""Number of first updates that are not measured: they use kernels for the first time."""

ENOUGH = WARM_UP + 4
"""Number of updates after which a run can be measured."""

LEARNING = ("update", "adapter_check", "sync", "checkpoint")
"""Names in the ledger of the learner's activities in an update."""

LEAST_VARIED = 0.05
"""Smallest fraction of groups with variance: a plan divides by it."""


@dataclass(frozen=True)
class Signal:
    """What the samples of training problems say.

    problems, n: their number, and samples of each. figures: means over problems by their names in
    conf/verdicts.yaml. verdict: the doctor's answer, as there. warning: it in a sentence, if it is against a run.
    """

    problems: int
    n: int
    figures: Mapping[str, Mean]
    workload: Workload
    verdict: str = ""
    warning: str = ""


class Measurements(FormattedDocument):
    """measurements.json, see `Known`."""

    measured: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Known:
    """All measurements: speeds by machine and model, workloads of runs and signals by recipe, see `recipe_of`."""

    speeds: dict[str, OnErrorOmit[Calibration]] = field(default_factory=dict)
    workloads: dict[str, OnErrorOmit[Workload]] = field(default_factory=dict)
    signals: dict[str, OnErrorOmit[Signal]] = field(default_factory=dict)


KNOWN = TypeAdapter(Known)


def known(config: Config, folder: Path | None = None) -> Known:
    """Return what runs in a folder, by default `run.folder`, have measured. Raises BadInput for a damaged file."""
    measured = read_document(folder / KEPT if folder else kept_in(config), Measurements)
    return KNOWN.validate_python(measured.measured) if measured else Known()


def keep(measured: Calibration | Signal, config: Config, machine: Machine) -> None:
    """Keep a signal or a calibration in place of the last one of its kind. Raises BadInput if the file is not ours."""
    file, remembered, recipe = kept_in(config), known(config), recipe_of(config)
    if isinstance(measured, Signal):
        remembered.signals[recipe] = measured
    else:
        remembered.speeds[_speed_key(config, machine)] = replace(measured, workload=None)
        if measured.workload:
            remembered.workloads[recipe] = measured.workload
    file.parent.mkdir(parents=True, exist_ok=True)  # the doctor measures before there is a run
    write_document(file, Measurements(measured=KNOWN.dump_python(remembered)))


def kept_in(config: Config) -> Path:
    """Return the file of all measurements; runs of a sweep share the file next to the sweep's folder."""
    folder = Path(config.run.folder)
    return (folder.parent if (folder / "sweep.json").exists() else folder) / KEPT


def recall(config: Config, machine: Machine, folder: Path | None = None) -> Calibration:
    """Return the last measurement of a model on this machine in this dtype, with the recipe's workload if a run has
    measured that anywhere, or else the doctor, but not before a warm start, which changes the lengths.

    folder: see `known`.
    """
    measured, recipe = known(config, folder), recipe_of(config)
    workload, signal = measured.workloads.get(recipe), measured.signals.get(recipe)
    if not workload and signal and not config.warm_start.source:
        workload = replace(signal.workload, by=f"the doctor on {signal.problems} problems")
    return replace(measured.speeds.get(_speed_key(config, machine), UNMEASURED), workload=workload)


def plan_measured(config: Config, machine: Machine, folder: Path | None = None) -> Plan:
    """Plan a run by the measurements of earlier runs. folder: see `known`."""
    return make_plan(config, machine, recall(config, machine, folder))


def learn_from(folder: Path, machine: Machine) -> str:
    """Keep a run's measurements, and say how long its updates take; nothing after few updates or without rates."""
    run = RunRecord(folder)
    rows = [row.metrics for row in run.rows()]
    if not machine.rates or len(rows) < ENOUGH:
        return ""
    keep(measure(run, machine), run.config(), machine)
    return f"Measured for the next plan: {duration(pace_of(rows).update_s)} per update so far"


def measure(run: RunRecord, machine: Machine) -> Calibration:
    """Return the calibration of a machine from a run of at least ENOUGH updates on it."""
    config, rows = run.config(), [row.metrics for row in run.rows()]
    samples = [sample for update in run.sampled("update")[WARM_UP:] for sample in run.samples(update)]
    names = ("prompt/mean_length", "response/mean_length", "groups/zero_variance")
    prompt, response, alike = (fmean(row[name] for row in rows[WARM_UP:]) for name in names)
    workload, pace = workload_of(samples, prompt, response, 1 - alike), pace_of(rows)
    whole = replace(machine, cards=())  # the run itself holds the cards' memory
    planned = make_plan(config, whole, Calibration(workload=workload)).estimate
    assert planned is not None
    return Calibration(
        generate=pace.generate_s / planned.generate_s,
        learn=pace.learn_s / planned.learn_s,
        start_s=(ledger.start_s or None) if (ledger := run.ledger()) else None,
        workload=workload,
        of=f"{len(rows) - WARM_UP} updates of {config.model.path} at rank {config.lora.rank}",
    )


def pace_of(rows: Sequence[Mapping[str, float]], skipped: int = WARM_UP) -> Pace:
    """Return the pace over rows of metrics.jsonl after the skipped ones."""
    first, last, count = rows[skipped - 1], rows[-1], len(rows) - skipped

    def passed(*names: str) -> float:
        return sum(last.get(name, 0.0) - first.get(name, 0.0) for name in names) / count

    return Pace(
        update_s=passed("budget/spent_s"),
        generate_s=passed("ledger/rollouts/generate"),
        learn_s=passed(*(f"ledger/learner/{activity}" for activity in LEARNING)),
    )


def workload_of(samples: Sequence[SampleRow], prompt: float, response: float, varied: float) -> Workload:
    """Return a workload by its means, with the spread and the common beginning of some of its samples."""
    lengths, prompts = [sample.tokens for sample in samples], [sample.prompt for sample in samples]
    shared = sum(1 for _ in takewhile(lambda characters: len(set(characters)) == 1, zip(*prompts, strict=False)))
    fresh, spread = prompt * (1 - shared / max(map(len, prompts))), pstdev(lengths) / fmean(lengths)
    return Workload(prompt, fresh, response, spread, min(max(varied, LEAST_VARIED), 1.0))


def recipe_of(config: Config) -> str:
    """Name the settings that samples and rewards depend on, and the present state of the model and of problem files."""
    keys = (*affecting("training", "prompt", "response", "verdict", "reward", "rollout"), "warm_start.source")
    values = {key: value for key, value in flatten(asdict(config)).items() if among(key, keys)}
    state: list[str | float] = [known_pin(config.model)]
    for source in (each.source for each in config.data.by_source.values() if each.source.startswith(FILE)):
        file = path_of(source.removeprefix(FILE), f"{config.data.key}: {source}")
        state += [os.path.getsize(file), os.path.getmtime(file)] if os.path.isfile(file) else []
    digest = blake2b(repr([values, state]).encode(), digest_size=6).hexdigest()
    return f"{config.model.path}, {config.data.origin}, {digest}"


def _speed_key(config: Config, machine: Machine) -> str:
    """Name machine, model, dtype and, on a GPU, the switches that change its speed."""
    cores = "" if machine.gpus else f" × {len(machine.cores)}"
    plain = " with plain kernels" if machine.gpus and not config.learner.fused_kernels else ""
    eager = " without graphs" if machine.gpus and config.rollout.enforce_eager else ""
    return f"{machine.name}{cores}, {config.model.path} in {config.model.dtype}{plain}{eager}"

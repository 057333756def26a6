"""What runs and the doctor have measured, kept for later plans in one file in the folder of all runs."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import OnErrorOmit, TypeAdapter

from actors.evaluation.statistics import Mean
from actors.models.files import known_pin
from actors.storage.documents import FormattedDocument
from actors.storage.files import read_document, write_document
from conf.parsing import flatten, path_of
from conf.schema import Config, affecting, among
from launch.hardware.machine import Machine
from launch.plan.plan import FILE, Plan, make_plan
from launch.plan.time import UNMEASURED, Calibration, Workload

KEPT = "measurements.json"
"""Name of the file."""


@dataclass(frozen=True)
class Signal:
    """What the samples of training problems say.

    problems, n: their number, and samples of each. figures: means over problems by their names in
    docs/how-to/is-it-worth-it.md. verdict: see conf/verdicts.yaml. warning: it in a sentence, if it is against a run.
    """

    problems: int
    n: int
    figures: Mapping[str, Mean]
    workload: Workload
    verdict: str = ""
    warning: str = ""


CALIBRATIONS = TypeAdapter(dict[str, OnErrorOmit[Calibration]])
SIGNALS = TypeAdapter(dict[str, OnErrorOmit[Signal]])


class Measurements(FormattedDocument):
    """measurements.json. Impossible entries are ignored.

    calibrations: by machine, model and lengths, the newest last. signals: by recipe, see `recipe_of`
    """

    calibrations: dict[str, Any]
    signals: dict[str, Any]


def known(config: Config, folder: Path | None = None) -> tuple[dict[str, Calibration], dict[str, Signal]]:
    """Return all calibrations and signals. folder: the folder of all runs, if not that of `run.folder`.

    Raises BadInput if the file is damaged or somebody else's.
    """
    kept = read_document(folder / KEPT if folder else kept_in(config), Measurements)
    return (
        (CALIBRATIONS.validate_python(kept.calibrations), SIGNALS.validate_python(kept.signals)) if kept else ({}, {})
    )


def keep(measured: Calibration | Signal, config: Config, machine: Machine) -> None:
    """Keep a signal, or a calibration of the machine, for later plans; it replaces the last one of its kind.

    Raises BadInput if the file is damaged or somebody else's.
    """
    file, (calibrations, signals) = kept_in(config), known(config)
    if isinstance(measured, Signal):
        signals[recipe_of(config)] = measured
    else:
        key = _machine_key(config, machine) + _lengths_key(config)
        calibrations.pop(key, None)  # the newest is the last
        calibrations[key] = measured
    content = {"calibrations": CALIBRATIONS.dump_python(calibrations), "signals": SIGNALS.dump_python(signals)}
    file.parent.mkdir(parents=True, exist_ok=True)  # the doctor measures before there is a run
    write_document(file, Measurements(**content))


def kept_in(config: Config) -> Path:
    """Return the file of all measurements; runs of a sweep share the file next to the sweep's folder."""
    folder = Path(config.run.folder)
    return (folder.parent if (folder / "sweep.json").exists() else folder) / KEPT


def recall(config: Config, machine: Machine, folder: Path | None = None) -> Calibration:
    """Return the last measurement of a model on this machine in this dtype, with its workload only at the same lengths.

    From another machine, return only the workload: it does not depend on the machine. The doctor's signal replaces the
    workload of other recipes, but not before a warm start, which changes the lengths. folder: see `known`.
    """
    (calibrations, signals), recipe = known(config, folder), recipe_of(config)
    measured, signal = _calibration(calibrations, config, machine), signals.get(recipe)
    of_recipe = measured.workload and measured.workload.recipe == recipe
    if not signal or config.warm_start.source or of_recipe:
        return measured
    return replace(measured, workload=replace(signal.workload, by=f"the doctor on {signal.problems} problems"))


def _calibration(kept: Mapping[str, Calibration], config: Config, machine: Machine) -> Calibration:
    here, lengths = _machine_key(config, machine), _lengths_key(config)
    if on_this := [each for key, each in kept.items() if key.startswith(here)]:
        return kept.get(here + lengths) or replace(on_this[-1], workload=None)
    model = f", {config.model.path} in "
    elsewhere = [each.workload for key, each in kept.items() if model in key and key.endswith(f": {lengths}")]
    return replace(UNMEASURED, workload=elsewhere[-1] if elsewhere else None)


def plan_measured(config: Config, machine: Machine, folder: Path | None = None) -> Plan:
    """Plan a run by the measurements of earlier runs. folder: see `known`."""
    return make_plan(config, machine, recall(config, machine, folder))


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


def _machine_key(config: Config, machine: Machine) -> str:
    """Name machine, model, dtype and, on a GPU, the switch that changes its speed."""
    cores = "" if machine.gpus else f" × {len(machine.cores)}"
    plain = " with plain kernels" if machine.gpus and not config.learner.fused_kernels else ""
    return f"{machine.name}{cores}, {config.model.path} in {config.model.dtype}{plain}: "


def _lengths_key(config: Config) -> str:
    """Name the model's files and the settings that decide the lengths of prompts and responses."""
    return f"{config.data.origin}, {config.rollout.max_response_tokens}, {known_pin(config.model)}"

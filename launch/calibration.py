"""How far a machine is from what its rates promise: measured by every run, kept for the next plan."""

import json
import os
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from omegaconf import OmegaConf

from actors.costs import Costs, Workload
from actors.durable import replace_text
from conf.schema import Config
from launch.machine import Machine

ENOUGH = 6
"""Updates after which a run is measured; the first two, in which kernels are used for the first time, are left out."""

WARM_UP = 2

LEAST_VARIED = 0.05
"""Of the groups: with none that differ a run would end."""

FITTINGS = 3
"""Simulations that decoding is fitted by."""


@dataclass(frozen=True)
class Calibration:
    """Factors on the seconds that rates and sizes promise: of decoding and prefill, of learning, of swaps, of
    checkpoints; start_s, verify_s: measured, None if not. workload: of the same recipe, if known. of: what was
    measured, in words; empty if nothing.
    """

    decode: float = 1.0
    learn: float = 1.0
    swap: float = 1.0
    checkpoint: float = 1.0
    start_s: float | None = None
    verify_s: float | None = None
    workload: Workload | None = None
    of: str = ""

    def correct(self, costs: Costs) -> Costs:
        return replace(
            costs,
            step_s=costs.step_s * self.decode,
            sample_s=costs.sample_s * self.decode,
            prefill_s=costs.prefill_s * self.decode,
            learn_s=costs.learn_s * self.learn,
            score_s=costs.score_s * self.learn,
            update_s=costs.update_s * self.learn,
            swap_s=costs.swap_s * self.swap,
            checkpoint_s=costs.checkpoint_s * self.checkpoint,
            start_s=costs.start_s if self.start_s is None else self.start_s,
            verify_s=costs.verify_s if self.verify_s is None else self.verify_s,
        )


UNMEASURED = Calibration()


def measure(folder: Path, machine: Machine) -> Calibration:
    """What a run on this machine says about it, from the files in its folder, at least ENOUGH updates of them.

    Everything but decoding is compared with what its sizes promise. How full the engines were while they decoded is not
    in the files, so decoding is made so much slower or faster that a simulation generates as long as the run did.
    """
    from launch.plan import make_plan

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, measured = rows[0], rows[WARM_UP:]
    config = read_config(folder)
    groups, samples = config.learner.problems_per_update, config.rollout.samples_per_problem
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
    costs, ranks = plan.costs, len(plan.placement.learners)
    assert costs is not None
    learned = sum(
        row["tokens/trained"] + (1 - row["groups/zero_variance"]) * groups * row["prompt/mean_length"]
        for row in measured
    )
    evaluation = folder / "eval-base.json"
    judged = json.loads(evaluation.read_text())["seconds"] if evaluation.exists() else 0.0
    saved = rows[-1].get("ledger/learner/checkpoint", 0.0)
    found = Calibration(
        learn=_total(measured, "time/learn") / (learned * costs.learn_s / ranks + len(measured) * costs.update_s),
        swap=_total(measured, "time/sync") / (len(measured) * costs.swap_s),
        checkpoint=saved / costs.checkpoint_s / (1 + len(rows) // config.checkpoint.every) if saved else 1.0,
        start_s=max(first["ledger/run/start"] + first["ledger/run/starting"] - judged, 0.0),
        verify_s=fmean(row["time/verify"] for row in measured) / samples,
        workload=workload,
        of=f"{len(measured)} updates of {config.model.path} at rank {config.lora.rank}",
    )
    generate_s = passed(rows, "ledger/rollouts/generate") / len(measured)
    return _fit_decoding(found, config, machine, generate_s)


def _fit_decoding(found: Calibration, config: Config, machine: Machine, generate_s: float) -> Calibration:
    """The factor with which a simulated update generates for so many seconds."""
    from launch.forecast import forecast
    from launch.plan import make_plan

    for _ in range(FITTINGS):
        simulated = forecast(make_plan(config, machine, found))
        found = replace(found, decode=found.decode * generate_s / simulated.generate_s)
    return found


def read_config(folder: Path) -> Config:
    """The configuration of the run in a folder."""
    merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(folder / "config.yaml"))
    config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return config


def passed(rows: list[dict[str, float]], name: str) -> float:
    """How much of a growing figure fell into the measured rows."""
    return rows[-1].get(name, 0.0) - rows[WARM_UP - 1].get(name, 0.0)


def _total(rows: list[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows)


def _samples(folder: Path) -> list[dict[str, Any]]:
    """Those that were kept of the measured updates."""
    files = sorted((folder / "samples").glob("update-*.jsonl"))[WARM_UP:]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _store() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "microbudget-rl" / "calibration.json"


def keep(calibration: Calibration, config: Config, machine: Machine) -> None:
    """Remember a measurement for the next plan on this machine, in the place of the last one like it."""
    known = {} if not _store().exists() else json.loads(_store().read_text())
    known.pop(_machine_key(config, machine) + _recipe_key(config), None)
    known[_machine_key(config, machine) + _recipe_key(config)] = asdict(calibration)
    _store().parent.mkdir(parents=True, exist_ok=True)
    replace_text(_store(), json.dumps(known, indent=1) + "\n")


def recall(config: Config, machine: Machine) -> Calibration:
    """What was measured on this machine in this dtype: with this model and data if possible, else the latest."""
    known: dict[str, Any] = json.loads(_store().read_text()) if _store().exists() else {}
    here = {key: value for key, value in known.items() if key.startswith(_machine_key(config, machine))}
    if not here:
        return UNMEASURED
    same = here.get(_machine_key(config, machine) + _recipe_key(config))
    found = same or list(here.values())[-1]
    workload = Workload(**found["workload"]) if same else None
    return Calibration(**(found | {"workload": workload}))


def _machine_key(config: Config, machine: Machine) -> str:
    units = "" if machine.gpus else f" × {len(machine.cores)}"
    return f"{machine.name}{units} in {config.model.dtype}: "


def _recipe_key(config: Config) -> str:
    """What decides the lengths of prompts and answers."""
    return f"{config.model.path}, {config.data.source}, {config.rollout.max_response_tokens}"

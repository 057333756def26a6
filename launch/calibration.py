"""How far a machine is from what its rates promise: measured by every run, kept for the next plan."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actors.costs import Costs, Workload
from actors.durable import replace_text
from conf.schema import Config
from launch.machine import Machine


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

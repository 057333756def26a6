"""How far a machine is from what its rates promise: measured by every run, kept for the next plan."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from actors.storage.files import replace_text
from conf.schema import Config
from launch.plan.costs import Costs, Workload
from launch.plan.machine import Machine


@dataclass(frozen=True)
class Calibration:
    """Factors on the seconds that rates and sizes promise: of decoding and prefill, of the learner's passes, of its
    steps, of the canary's check, of swaps, of checkpoints; start_s, verify_s: measured, None if not. workload: of the
    same recipe, if known. of: what was measured, in words; empty if nothing.
    """

    decode: float = 1.0
    learn: float = 1.0
    update: float = 1.0
    score: float = 1.0
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
            score_s=costs.score_s * self.score,
            update_s=costs.update_s * self.update,
            swap_s=costs.swap_s * self.swap,
            checkpoint_s=costs.checkpoint_s * self.checkpoint,
            start_s=costs.start_s if self.start_s is None else self.start_s,
            verify_s=costs.verify_s if self.verify_s is None else self.verify_s,
        )


UNMEASURED = Calibration()


def keep(calibration: Calibration, config: Config, machine: Machine) -> None:
    """Remember a measurement for the next plan of a run in the same folder, in the place of the last one like it."""
    key = _rates_key(config, machine) + _lengths_key(config)
    known = {other: found for other, found in _known(config).items() if other != key} | {key: asdict(calibration)}
    replace_text(_store(config), json.dumps(known, indent=1) + "\n")


def recall(config: Config, machine: Machine) -> Calibration:
    """What was measured of a model on this machine, in this dtype; lengths only where they were those of the recipe."""
    key = _rates_key(config, machine)
    known = {name: read for name, found in _known(config).items() if (read := _read(found)) and name.startswith(key)}
    if (measured := known.get(key + _lengths_key(config))) is not None:
        return measured
    return replace(list(known.values())[-1], workload=None) if known else UNMEASURED


def _known(config: Config) -> dict[str, Any]:
    """All that was kept; nothing where that cannot be read, which no plan has to have."""
    try:
        known = json.loads(_store(config).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _read(entry: Any) -> Calibration | None:
    """An entry as this version writes it, else None."""
    try:
        found: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Calibration), entry))
    except (OmegaConfBaseException, TypeError, ValueError):
        return None
    return found


def _store(config: Config) -> Path:
    return Path(config.run.folder) / "calibration.json"


def _rates_key(config: Config, machine: Machine) -> str:
    units = "" if machine.gpus else f" × {len(machine.cores)}"
    return f"{machine.name}{units}, {config.model.path} in {config.model.dtype}: "


def _lengths_key(config: Config) -> str:
    """What decides the lengths of prompts and answers."""
    return f"{config.data.source}, {config.rollout.max_response_tokens}"

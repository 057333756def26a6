"""The learner's part of a checkpoint: state by parameter name in safetensors, facts in JSON; nothing is unpickled."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Size, Tensor, float32

from conf.errors import BadInput
from conf.schema import Config

STATE_FILE = "learner.safetensors"
FACTS_FILE = "learner.json"
REMEDY = "resume from another one or start a new run"
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError)


@dataclass(frozen=True)
class Facts:
    """What a state belongs to. version: updates made; steps: of the optimizer, which rests without examples."""

    version: int
    steps: int
    model: str
    dtype: str
    rank: int
    alpha: int
    rslora: bool
    target_modules: tuple[str, ...]
    seed: int
    steps_per_batch: int


def write_checkpoint(folder: Path, facts: Facts, state: dict[str, Tensor]) -> None:
    save_file(state, folder / STATE_FILE)
    (folder / FACTS_FILE).write_text(json.dumps(asdict(facts), indent=2) + "\n")


def expected_facts(config: Config, version: int = 0, steps: int = 0) -> Facts:
    """What a state of this run belongs to."""
    return Facts(
        version=version,
        steps=steps,
        model=config.model.path,
        dtype=config.model.dtype,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        rslora=config.lora.rslora,
        target_modules=tuple(config.lora.target_modules),
        seed=config.run.seed,
        steps_per_batch=config.algorithm.steps_per_batch,
    )


def foreign(folder: Path, expected: Facts) -> str | None:
    """Why a checkpoint cannot be this run's own, by its facts; None if it can. `expected` holds this run's settings."""
    try:
        stored = json.loads((folder / FACTS_FILE).read_text())
        facts = Facts(**{**stored, "target_modules": tuple(stored["target_modules"])})
    except UNREADABLE as error:
        return f"cannot be read ({error})"
    for name in (field.name for field in fields(Facts) if field.name not in ("version", "steps")):
        ours, theirs = getattr(expected, name), getattr(facts, name)
        if ours != theirs:
            return f"was made with {name} {theirs}, this run has {ours}"
    steps, version = facts.steps, facts.version
    if type(version) is not int or type(steps) is not int or not 0 <= steps <= version * expected.steps_per_batch:
        return f"{steps} optimizer steps in {version} updates cannot be"
    return None


def read_checkpoint(folder: Path, expected: Facts, shapes: dict[str, Size]) -> tuple[Facts, dict[str, Tensor]]:
    """What `write_checkpoint` wrote. `expected` holds this run's settings, `shapes` what the state holds.

    Raises BadInput if files are missing or damaged, or belong to another model, adapter or seed.
    """
    if (reason := foreign(folder, expected)) is not None:
        raise BadInput(f"checkpoint {folder}: {reason}; {REMEDY}")
    stored = json.loads((folder / FACTS_FILE).read_text())
    try:
        state = load_file(folder / STATE_FILE)
    except UNREADABLE as error:
        raise BadInput(f"checkpoint {folder}: cannot be read ({error}); {REMEDY}") from None
    for name, shape in shapes.items():
        tensor = state.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != float32 or not tensor.isfinite().all():
            raise BadInput(f"checkpoint {folder}: {name} is missing, of another shape or type, or not finite; {REMEDY}")
    return replace(expected, version=stored["version"], steps=stored["steps"]), state

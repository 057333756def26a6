"""The learner's part of a checkpoint: state by parameter name in safetensors, facts in JSON; nothing is unpickled.

The coordinator, which looks at the facts alone, is spared torch.
"""

import json
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from conf.departed import value_today
from conf.errors import BadInput
from conf.schema import Config
from conf.settings import settings

if TYPE_CHECKING:
    from torch import Size, Tensor

STATE_FILE = "learner.safetensors"
FACTS_FILE = "learner.json"
REMEDY = "resume from another one or start a new run"
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError)


def write_checkpoint(folder: Path, config: Config, version: int, steps: int, state: dict[str, "Tensor"]) -> None:
    """Write a learner's state. version: updates made; steps: of the optimizer; a batch without examples has none."""
    from safetensors.torch import save_file

    save_file(state, folder / STATE_FILE)
    kept = {item.checkpointed: attrgetter(item.path)(config) for item in settings(Config) if item.checkpointed}
    facts = {"version": version, "steps": steps, **kept}
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n")


def read_checkpoint(folder: Path, config: Config, shapes: "dict[str, Size]") -> "tuple[int, int, dict[str, Tensor]]":
    """Return version, steps and state as `write_checkpoint` got them. shapes: of what the state has to hold.

    Raises BadInput if files are missing or damaged, or are not of this run.
    """
    from safetensors.torch import load_file
    from torch import float32

    if (reason := foreign(folder, config)) is not None:
        raise BadInput(f"checkpoint {folder}: {reason}; {REMEDY}")
    facts = json.loads((folder / FACTS_FILE).read_text())
    try:
        state = load_file(folder / STATE_FILE)
    except UNREADABLE as error:
        raise BadInput(f"checkpoint {folder}: cannot be read ({error}); {REMEDY}") from None
    for name, shape in shapes.items():
        tensor = state.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != float32 or not tensor.isfinite().all():
            raise BadInput(f"checkpoint {folder}: {name} is missing, of another shape or type, or not finite; {REMEDY}")
    return facts["version"], facts["steps"], state


def foreign(folder: Path, config: Config) -> str | None:
    """Return why a checkpoint cannot be of a run with these settings, by its facts; None if it can."""
    try:
        facts = json.loads((folder / FACTS_FILE).read_text())
        version, steps = facts["version"], facts["steps"]
        for item in settings(Config):
            ours = attrgetter(item.path)(config)
            if item.checkpointed and (theirs := value_today(item.path, facts[item.checkpointed])) != ours:
                return f"was made with {item.checkpointed} {theirs}, this run has {ours}"
    except UNREADABLE as error:
        return f"cannot be read ({error})"
    if type(version) is type(steps) is int and 0 <= steps <= version * config.algorithm.steps_per_batch:
        return None
    return f"{steps} optimizer steps in {version} updates cannot be"

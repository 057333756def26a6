"""The learner's part of a checkpoint: state by parameter name in safetensors, facts in JSON; nothing is unpickled.

The coordinator reads the facts alone and does not import torch.
"""

import json
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from microbudget_rl.actors.storage.documents import LearnerRecord
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import read_json
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import settings

if TYPE_CHECKING:
    from torch import Size, Tensor

    from microbudget_rl.learner.distributed import World

STATE_FILE = "learner.safetensors"
FACTS_FILE = "learner.json"
REMEDY = "resume from another one or start a new run"


def write_checkpoint(folder: Path, config: Config, version: int, steps: int, state: dict[str, "Tensor"]) -> None:
    """Write a learner's state. version: updates made; steps: as in LearnerRecord."""
    from safetensors.torch import save_file

    save_file(state, folder / STATE_FILE)
    depends = {item.checkpointed: attrgetter(item.path)(config) for item in settings(Config) if item.checkpointed}
    facts = LearnerRecord(version=version, steps=steps, **depends)
    (folder / FACTS_FILE).write_text(json.dumps(facts.content, indent=2) + "\n")


def read_checkpoint(
    folder: Path, config: Config, shapes: "dict[str, Size]", world: "World"
) -> "tuple[int, int, dict[str, Tensor]]":
    """Return version, steps and state as `write_checkpoint` got them. shapes: those of the state's tensors.

    Only the first process reads the folder, which the others need not see; they get no state.
    Raises BadInput if files are missing or damaged, or belong to another run.
    """
    version, steps, state, refusal = 0, 0, dict[str, "Tensor"](), ""
    if world.leads:
        try:
            version, steps, state = _read(folder, config, shapes)
        except BadInput as error:
            refusal = str(error)
    version, steps, refusal = world.gather((version, steps, refusal))[0]
    if refusal:
        raise BadInput(refusal)
    return version, steps, state


def _read(folder: Path, config: Config, shapes: "dict[str, Size]") -> "tuple[int, int, dict[str, Tensor]]":
    from safetensors.torch import load_file
    from torch import float32

    facts: LearnerRecord = read_json(folder / FACTS_FILE, LearnerRecord, REMEDY)
    if reason := misfit(folder, config):
        raise BadInput(f"checkpoint {folder}: {reason}; {REMEDY}")
    try:
        state = load_file(folder / STATE_FILE)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"checkpoint {folder}: cannot be read ({error}); {REMEDY}") from None
    for name, shape in shapes.items():
        tensor = state.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype != float32 or not tensor.isfinite().all():
            raise BadInput(f"checkpoint {folder}: {name} is missing, of another shape or type, or not finite; {REMEDY}")
    return facts.version, facts.steps, state


def misfit(folder: Path, config: Config) -> str | None:
    """Return why a checkpoint cannot belong to a run with these settings, by its facts; None if it can."""
    try:
        facts: LearnerRecord = read_json(folder / FACTS_FILE, LearnerRecord, REMEDY)
    except BadInput as error:
        return str(error)
    for item in settings(Config):
        ours = attrgetter(item.path)(config)
        if item.checkpointed and (theirs := getattr(facts, item.checkpointed)) != ours:
            return f"was made with {item.checkpointed} {theirs}, this run has {ours}"
    return None

"""What a run has trained: its settings, its base model and the adapter of one of its checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from actors.storage.checkpoints import target
from actors.storage.files import damage
from actors.storage.run_record import RunRecord
from conf.adapters import adopt_adapter
from conf.errors import BadInput
from conf.load import load, recorded
from conf.models import locate
from conf.schema import Config

LATEST = "latest"


@dataclass(frozen=True)
class Trained:
    """A policy that a run has trained.

    config: the run's settings. model_path: the base model's local folder.
    checkpoint: the folder whose adapter it is, links resolved.
    """

    run: RunRecord
    config: Config
    model_path: str
    checkpoint: Path

    @property
    def adapter(self) -> Path:
        """Folder of the plain PEFT adapter."""
        return self.checkpoint / "adapter"


def find_trained(folder: Path, checkpoint: str = LATEST) -> Trained:
    """Return what the run in a folder has trained. checkpoint: latest, best or the name of one.

    Raises BadInput if there is no such run or checkpoint, if the adapter is not the one that the run has written, or
    does not belong to the run's model.
    """
    run = find_run(folder)
    found = target(run.checkpoints.folder / checkpoint)
    names = [each.name for each in run.checkpoints.all]
    if not names:
        raise BadInput(f"the run in {folder} has no checkpoint yet: let it go on until it has one")
    if found is None or found.name not in names:
        hint = "; `best` is there where validation.every asks for it" if checkpoint == "best" else ""
        raise BadInput(f"checkpoint={checkpoint}: the run in {folder} has {', '.join([LATEST, *names])}{hint}")
    if (reason := damage(found, "adapter/")) is not None:
        raise BadInput(f"the adapter in {found} is not as the run has written it ({reason}): name another checkpoint")
    config = load([f"adapter={found / 'adapter'}"])
    model_path = locate(config.model)
    adopt_adapter(config, model_path)
    return Trained(run, config, model_path, found)


def find_run(folder: Path) -> RunRecord:
    """Return the run in a folder. Raises BadInput if there is none."""
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}: name that of a run, such as runs/quickstart")
    if not recorded(folder):
        raise BadInput(f"{folder} is not the folder of a run: name one that has a config.yaml, such as runs/quickstart")
    return RunRecord(folder)

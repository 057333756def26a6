"""The plain PEFT adapter, copied out of a checkpoint."""

import json
import shutil
from pathlib import Path

from actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from launch.trained.policy import Trained


def write_adapter(trained: Trained, folder: Path, base: str = "") -> None:
    """Copy the adapter into an empty folder.

    base: the name that it gives its base model; if empty the model's id on the hub, or its path here.
    """
    shutil.copyfile(trained.adapter / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    stated = json.loads((trained.adapter / CONFIG_FILE).read_text())
    if base or from_hub(trained):
        stated["base_model_name_or_path"] = base or trained.config.model.path
    (folder / CONFIG_FILE).write_text(json.dumps(stated, indent=2) + "\n")


def from_hub(trained: Trained) -> bool:
    """Whether the base model was named by its id on the hub."""
    base = trained.config.model.path
    return not base.startswith("embedded:") and not Path(base).exists()

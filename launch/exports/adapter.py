"""The plain PEFT adapter, copied out of a checkpoint."""

import json
import shutil
from pathlib import Path

from conf.adapters import CONFIG_FILE, WEIGHTS_FILE
from launch.trained.policy import Trained


def write_adapter(trained: Trained, folder: Path) -> None:
    """Copy the adapter into an empty folder. It names a base model from the hub by its id, not by a path here."""
    shutil.copyfile(trained.adapter / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    stated = json.loads((trained.adapter / CONFIG_FILE).read_text())
    base = trained.config.model.path
    if not base.startswith("embedded:") and not Path(base).exists():
        stated["base_model_name_or_path"] = base
    (folder / CONFIG_FILE).write_text(json.dumps(stated, indent=2) + "\n")

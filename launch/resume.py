"""What to do with a run folder that exists already."""

from pathlib import Path
from typing import Any

import yaml

from conf.errors import BadInput
from conf.load import dump
from conf.schema import Config
from launch.result import finished

MAY_CHANGE = ("budget", "checkpoint", "dashboard", "device", "plan", "run.overwrite", "reward.workers")
"""Settings under which a run may be resumed with another value: they do not touch what is learned."""


def open_folder(config: Config) -> Path:
    """The folder of a run that may start or go on; BadInput if it is finished or was begun with other settings."""
    folder = Path(config.run.folder) / config.run.name
    if config.run.overwrite or not (folder / "config.yaml").exists():
        return folder
    if (summary := finished(folder)) is not None:
        raise BadInput(
            f"run {config.run.name!r} in {folder} is finished ({summary['status']}): "
            f"give run.overwrite=true to start it anew, "
            f"or run.name=OTHER to keep it"
        )
    before = flatten(yaml.safe_load((folder / "config.yaml").read_text()))
    now = flatten(yaml.safe_load(dump(config)))
    changed = sorted(
        key for key in before.keys() | now.keys() if before.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)
    )
    if changed:
        key = changed[0]
        raise BadInput(
            f"run {config.run.name!r} was begun with {key}={before.get(key)}, not {now.get(key)}: resume it with the "
            f"same settings, or give run.name=OTHER or run.overwrite=true"
            + (f" (also changed: {', '.join(changed[1:])})" if changed[1:] else "")
        )
    return folder


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""Reads a sweep's command line: which runs it is made of."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_origin

from actors.storage.run_record import RunRecord
from conf.arguments import pairs
from conf.errors import BadInput
from conf.load import load, read_value, recipe_names
from conf.schema import Config, ConfigWithSweep, SweepConfig
from conf.schema.run import PLAIN_NAME
from conf.settings import settings

SEED = "run.seed"

AXES = {"ranks": "lora.rank", "seeds": SEED}
"""Short names of the usual axes."""

SHORT = {"lora.rank": "r", "run.seed": "seed", "conf": "", "model.path": ""}
"""What stands before an axis's value in the name of a cell; otherwise the last part of the key and an equals sign."""

REMEDIES = {item.path: item.not_for_sweeps for item in settings(Config) if item.not_for_sweeps}
"""Setting that a sweep refuses → what to do instead."""

MODEL = ("conf", "model.path")
"""Axes that change the model, and so what accuracy means."""

LISTS = {item.path for item in settings(Config) if get_origin(item.kind) is list}
"""Settings that take a list."""


@dataclass(frozen=True)
class Cell:
    """One run. overrides: its value on each axis. arguments: of its `launch/run.py`. config: what they mean."""

    name: str
    overrides: dict[str, Any]
    arguments: tuple[str, ...]
    config: Config

    @property
    def record(self) -> RunRecord:
        return RunRecord(Path(self.config.run.folder) / self.name)


@dataclass(frozen=True)
class Grid:
    """A sweep as it was asked for. cells: seeds change slowest, so that a sweep cut short has compared something.
    folder: where the cells' folders are.
    """

    name: str
    conf: str
    settings: SweepConfig
    axes: dict[str, list[Any]]
    cells: tuple[Cell, ...]
    folder: Path


def read_grid(arguments: Sequence[str]) -> Grid:
    """Return the sweep that a command line asks for. Raises BadInput for what is no sweep, or no run in some cell.

    A list is an axis, but for settings that are lists themselves, which take a list of lists for it. `models` are
    recipes, or else paths.
    """
    texts = _split(arguments)
    conf = texts.pop("conf", "")
    own = [key for key in texts if key == "run.folder" or key.startswith("sweep.")]
    asked = load([f"conf={conf}", *(f"{key}={texts.pop(key)}" for key in own)], kind=ConfigWithSweep)
    assert isinstance(asked, ConfigWithSweep)
    of_sweep, root = asked.sweep, Path(asked.run.folder)
    axes = _axes(texts)
    if not axes:
        raise BadInput("nothing to sweep: give a list, such as ranks=[8,64], seeds=[0,1,2] or lora.alpha=[16,32]")
    name = of_sweep.name or f"{conf}-sweep"
    if not PLAIN_NAME.allows(name):
        raise BadInput(f"sweep.name={name} is not possible: {PLAIN_NAME.remedy}")
    both = [key for key in ("budget.hours", "budget.minutes") if key in texts]
    if of_sweep.seconds is not None and both:
        raise BadInput(f"{both[0]} and a budget of the whole sweep are given: keep one")
    kept = [f"{key}={text}" for key, text in texts.items() if key != "models" and AXES.get(key, key) not in axes]
    kept.append(f"run.folder={root / name}")
    order = sorted(axes, key=lambda key: (key != SEED, key not in MODEL))
    shown = sorted(order, key=lambda key: key == SEED)
    cells = []
    for values in product(*(axes[key] for key in order)):
        chosen = dict(zip(order, values, strict=True))
        overrides = {key: chosen[key] for key in shown}
        word = "-".join(_word(key, value) for key, value in overrides.items())
        own = [f"{key}={json.dumps(value)}" for key, value in overrides.items() if key != "conf"]
        run = [f"conf={overrides.get('conf', conf)}", *own, *kept, f"run.name={word}"]
        cells.append(Cell(word, overrides, tuple(run), load(run)))
    word, times = Counter(cell.name for cell in cells).most_common(1)[0]
    if times > 1:
        raise BadInput(
            f"{times} cells would be named {word}: give every value of an axis once, under another last part"
        )
    return Grid(name, conf, of_sweep, axes, tuple(cells), root / name)


def _split(arguments: Sequence[str]) -> dict[str, str]:
    """Return the arguments by their keys."""
    texts: dict[str, str] = {}
    for key, text in pairs(arguments, "conf=quickstart or ranks=[8,64]", (*AXES, "models")).items():
        target = AXES.get(key, key)
        if any(AXES.get(known, known) == target for known in texts):
            raise BadInput(f"{key}={text}: {target} is twice on the command line; keep one")
        if key in REMEDIES:
            raise BadInput(f"{key}={text} is not for a sweep: {REMEDIES[key]}")
        texts[key] = text
    return texts


def _axes(texts: dict[str, str]) -> dict[str, list[Any]]:
    """Return the values of each axis, by the setting they are for."""
    axes: dict[str, list[Any]] = {}
    for key, text in texts.items():
        named, target = key in (*AXES, "models"), AXES.get(key, key)
        value = read_value(key, text)
        if named and not isinstance(value, list):
            value = [value]
        of_lists = named or key not in LISTS or isinstance(next(iter(value), None), list)
        if not isinstance(value, list) or not of_lists:
            continue
        if not value:
            raise BadInput(f"{key}=[]: an axis without values; list some, or leave it out")
        if key == "models":
            recipes = [name in recipe_names() for name in value]
            if any(recipes) != all(recipes):
                raise BadInput(f"{key}={text}: recipes and paths are mixed; name recipes, or paths of models")
            target = "conf" if all(recipes) else "model.path"
        axes[target] = value
    return axes


def _word(key: str, value: Any) -> str:
    """Return the part of a cell's name that tells its value on an axis."""
    text = value if isinstance(value, str) else json.dumps(value)
    if key in MODEL:
        text = text.rstrip("/").rpartition("/")[2].removeprefix("embedded:")
    start = SHORT.get(key, f"{key.rpartition('.')[2]}=")
    return start + re.sub(r"[^\w.+=@-]+", "_", text).strip("_")

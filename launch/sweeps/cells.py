"""The cells of a sweep: which runs it is made of, what each may spend, and which one is given up early."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, get_origin, get_type_hints

from omegaconf import OmegaConf

from actors.storage.files import replace_text
from conf.errors import BadInput
from conf.load import load, load_section, override, recipe_names
from conf.schema import Config, SweepConfig
from conf.schema.run import PLAIN_NAME

AXES = {"ranks": "lora.rank", "seeds": "run.seed"}
"""Short names of the usual axes."""

SHORT = {"lora.rank": "r", "run.seed": "seed", "conf": "", "model.path": ""}
"""What stands before an axis's value in the name of a cell; otherwise the last part of the key and an equals sign."""

TAKEN = {
    "adapter": "launch/evaluate.py judges it; runs go on from lora.start_from",
    "run.name": "name the sweep with sweep.name=NAME; its cells are named after their values",
    "run.overwrite": "delete the sweep's folder to start anew, or give sweep.name=OTHER",
}

MODEL = ("conf", "model.path")
"""Axes that change the model, and so what accuracy means."""

FINISHED = ("completed", "budget_exhausted", "stopped_early")

WATCHED = (0.4, 0.5)
"""Shares of its budget between which a cell's accuracy decides whether it is given up."""


@dataclass(frozen=True)
class Cell:
    """One run: its name, where it differs from the others, the arguments of its `launch/run.py`, and what they mean."""

    name: str
    overrides: dict[str, Any]
    arguments: tuple[str, ...]
    config: Config

    @property
    def model(self) -> tuple[Any, ...]:
        return tuple(self.overrides.get(key) for key in MODEL)


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
    """What a command line asks for; raises BadInput for what is no sweep, and what is no run in any cell.

    A list is an axis, but for settings that are lists themselves, which take a list of lists for it. `models` are
    recipes, or else paths.
    """
    texts = _split(arguments)
    settings = load_section(SweepConfig, "sweep", [f"{k}={text}" for k, text in texts.items() if _of_sweep(k)])
    conf = texts.pop("conf", "")
    root = Path(load([f"conf={conf}", *(a for a in arguments if a.startswith("run.folder="))]).run.folder)
    axes = _axes(texts)
    if not axes:
        raise BadInput("nothing to sweep: give a list, such as ranks=[8,64], seeds=[0,1,2] or lora.alpha=[16,32]")
    name = settings.name or f"{conf}-sweep"
    _check(name, settings, {*texts, *axes})
    kept = [f"{k}={text}" for k, text in texts.items() if not _of_sweep(k) and k not in ("models", "run.folder")]
    kept = [argument for argument in kept if _target(argument.partition("=")[0]) not in axes]
    order = sorted(axes, key=lambda key: (key != "run.seed", key not in MODEL))
    cells = []
    for values in product(*(axes[key] for key in order)):
        overrides = dict(zip(order, values, strict=True))
        if "run.seed" in overrides:
            overrides["run.seed"] = overrides.pop("run.seed")
        word = "-".join(_word(key, value) for key, value in overrides.items())
        own = [f"conf={overrides.get('conf', conf)}"]
        own += [f"{key}={_text(value)}" for key, value in overrides.items() if key != "conf"]
        given = [*own, *kept, f"run.folder={root / name}", f"run.name={word}"]
        cells.append(Cell(word, overrides, tuple(given), load(given)))
    _check_names(cells)
    return Grid(name, conf, settings, axes, tuple(cells), root / name)


def rounds(cells: int, lanes: int) -> int:
    """Of cells one after another, where so many are shared out over lanes side by side."""
    return -(-cells // lanes)


def allowance(total_s: float, spent: Sequence[float], rounds: int) -> float:
    """Seconds the next cell may take in all, of `rounds` cells that share `total_s` one after another: an equal part of
    what the cells before it have left. spent: seconds of those.
    """
    return max(total_s - sum(spent), 0.0) / max(rounds - len(spent), 1)


def standing(rows: Iterable[dict[str, float]]) -> float | None:
    """Accuracy on training samples by which a cell is compared, from its metrics; None before half its budget."""
    shares = [(row["budget/spent_s"] / (row["budget/spent_s"] + row["budget/left_s"]), row) for row in rows]
    watched = [row["reward/accuracy"] for share, row in shares if WATCHED[0] < share <= WATCHED[1]]
    passed = any(share >= WATCHED[1] for share, _ in shares)
    return fmean(watched) if passed and watched else None


class Record:
    """sweep.json: how every cell stands, whole after any crash."""

    def __init__(self, grid: Grid) -> None:
        """Goes on from the record of an earlier process; raises BadInput if it knows of other cells."""
        self._grid = grid
        self._file = grid.folder / "sweep.json"
        self.status = {cell.name: "pending" for cell in grid.cells}
        self.reason: dict[str, str | None] = {cell.name: None for cell in grid.cells}
        known = json.loads(self._file.read_text())["cells"] if self._file.exists() else []
        for entry in known:
            if entry["cell"] not in self.status:
                raise BadInput(
                    f"sweep {grid.name!r} has a cell {entry['cell']} that this command leaves out: "
                    f"give all its axes, or sweep.name=OTHER"
                )
            self.status[entry["cell"]] = entry["status"]
            self.reason[entry["cell"]] = entry["reason"]

    def put(self, cell: str, status: str, reason: str | None = None) -> None:
        self.status[cell], self.reason[cell] = status, reason
        self.write()

    def write(self) -> None:
        grid = self._grid
        content = {
            "name": grid.name,
            "conf": grid.conf,
            "axes": grid.axes,
            "cells": [
                {
                    "cell": cell.name,
                    "overrides": cell.overrides,
                    "run": cell.name,
                    "status": self.status[cell.name],
                    "reason": self.reason[cell.name],
                }
                for cell in grid.cells
            ],
        }
        replace_text(self._file, json.dumps(content, indent=2) + "\n")


def _split(arguments: Sequence[str]) -> dict[str, str]:
    """The arguments by their keys."""
    texts: dict[str, str] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not (key and equals):
            raise BadInput(f"argument {argument!r}: write it as key=value, such as conf=quickstart or ranks=[8,64]")
        if _target(key) in map(_target, texts):
            raise BadInput(f"{argument}: {_target(key)} is twice on the command line; keep one")
        if key in TAKEN:
            raise BadInput(f"{argument} is not for a sweep: {TAKEN[key]}")
        texts[key] = text
    return texts


def _axes(texts: dict[str, str]) -> dict[str, list[Any]]:
    """Values by the key they are for."""
    axes: dict[str, list[Any]] = {}
    for key, text in texts.items():
        named, target = key in (*AXES, "models"), _target(key)
        value = OmegaConf.to_container(OmegaConf.create([OmegaConf.select(override(key, text), key)]))[0]  # type: ignore[index]
        if named and not isinstance(value, list):
            value = [value]
        of_lists = named or not _is_list(key) or isinstance(next(iter(value), None), list)
        if _of_sweep(key) or not isinstance(value, list) or not of_lists:
            continue
        if not value:
            raise BadInput(f"{key}=[]: an axis without values; list some, or leave it out")
        if key == "models":
            recipes = [name in recipe_names() for name in value]
            if any(recipes) != all(recipes):
                raise BadInput(f"{key}={text}: recipes and paths are mixed; name recipes, or paths of models")
            target = MODEL[not all(recipes)]
        axes[target] = value
    return axes


def _of_sweep(key: str) -> bool:
    return key.startswith("sweep.")


def _target(key: str) -> str:
    return AXES.get(key, key)


def _is_list(key: str) -> bool:
    """Whether a setting takes a list."""
    kind: Any = Config
    for part in key.split("."):
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    return get_origin(kind) is list


def _check(name: str, settings: SweepConfig, given: set[str]) -> None:
    if not PLAIN_NAME.allows(name):
        raise BadInput(f"sweep.name={name} is not possible: {PLAIN_NAME.remedy}")
    both = [key for key in ("budget.hours", "budget.minutes") if key in given]
    if settings.seconds is not None and both:
        raise BadInput(f"{both[0]} and a budget of the whole sweep are given: keep one")


def _check_names(cells: list[Cell]) -> None:
    for cell in cells:
        if not PLAIN_NAME.allows(cell.name):
            raise BadInput(f"a cell would be named {cell.name!r}: {PLAIN_NAME.remedy}")
    name, times = Counter(cell.name for cell in cells).most_common(1)[0]
    if times > 1:
        raise BadInput(
            f"{times} cells would be named {name}: give every value of an axis once, under another last part"
        )


def _word(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else _text(value)
    if key in MODEL:
        text = text.rstrip("/").rpartition("/")[2].removeprefix("embedded:")
    start = SHORT.get(key, f"{key.rpartition('.')[2]}=")
    return start + re.sub(r"[^\w.+=@-]+", "_", text).strip("_")


def _text(value: Any) -> str:
    """A value as YAML reads it back."""
    return json.dumps(value)

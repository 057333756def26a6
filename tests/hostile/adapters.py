"""Adapter folders that are damaged, or that say what cannot be."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.case import DAMAGES, Case, copied
from tests.hostile.stock import SETTINGS, WEIGHTS, Stock

RANKS: tuple[Any, ...] = (0, -1, 513, 10**30, math.nan, math.inf, "4", 4.5, True, None, [4], {"a": 1})
ALPHAS: tuple[Any, ...] = (0, -8, math.nan, math.inf, "8", 8.5, True, None, [8], 10**30)
MODULES: tuple[Any, ...] = ("q_proj", [], ["lm_head"], [1], [["q_proj"]], None, {"q_proj": 1}, ["q_proj", "q_proj"])
BASES: tuple[Any, ...] = (["a"], 3, {}, True, "", None, "/", "other/other", "a\0b")

BAD: dict[str, dict[str, Any]] = {
    **{f"r is {value!r}"[:60]: {"r": value} for value in RANKS},
    **{f"alpha is {value!r}"[:60]: {"lora_alpha": value} for value in ALPHAS},
    **{f"modules are {value!r}": {"target_modules": value} for value in MODULES},
    **{f"base is {value!r}": {"base_model_name_or_path": value} for value in BASES},
    "use_rslora is a text": {"use_rslora": "no"},
    "peft_type is a list": {"peft_type": ["LORA"]},
    "peft_type is missing": {"peft_type": None},
    "use_dora is a number": {"use_dora": 1},
    "rank_pattern is a text": {"rank_pattern": "x"},
    "init is a mapping": {"init_lora_weights": {"a": 1}},
    "bias is a list": {"bias": []},
    "modules_to_save is true": {"modules_to_save": True},
}


def cases() -> Iterator[Case]:
    for name, given in BAD.items():
        yield from _adapter(name, _stating(given))
    for damage in DAMAGES:
        for file in (SETTINGS, WEIGHTS):
            yield from _adapter(f"{file}: {damage.__name__}", lambda at, file=file, damage=damage: damage(at / file))
    for name, change in TENSORS.items():
        yield from _adapter(name, lambda folder, change=change: _tensors(folder, change))
    yield from _adapter("settings nested deeply inside", _deep_inside)
    yield from _adapter("no files", lambda folder: [file.unlink() for file in folder.iterdir()])
    yield from _adapter("only a pickle", lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"))


def _adapter(name: str, damage: Callable[[Path], Any]) -> Iterator[Case]:
    """Yield the case for evaluate.py, which takes an adapter's rank and modules as they are."""

    def prepare(place: Path, stock: Stock) -> list[str]:
        folder = copied(stock.adapter, place)
        damage(folder)
        return [*stock.settings, f"adapter={folder}", "n=1", f"run.folder={place / 'runs'}", "plan=true"]

    yield Case("adapters", name, "evaluate", prepare)


def _stating(given: dict[str, Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / SETTINGS).write_text(json.dumps({**json.loads((folder / SETTINGS).read_text()), **given}))

    return damage


def _deep_inside(folder: Path) -> None:
    text = json.dumps({**json.loads((folder / SETTINGS).read_text()), "loftq_config": "HERE"})
    (folder / SETTINGS).write_text(text.replace('"HERE"', "[" * 10_000 + "]" * 10_000))


def _tensors(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def _all(tensors: dict[str, Any], value: float, part: str = ".lora_B.") -> None:
    for name in tensors:
        if part in name:
            tensors[name] = tensors[name] * 0 + value


def _one(tensors: dict[str, Any], value: Any) -> None:
    tensors[next(iter(tensors))][0, 0] = value


TENSORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "B is zero": lambda tensors: _all(tensors, 0.0),
    "A is zero": lambda tensors: _all(tensors, 0.0, ".lora_A."),
    "B is NaN": lambda tensors: _all(tensors, math.nan),
    "one number is infinite": lambda tensors: _one(tensors, math.inf),
    "no tensors": lambda tensors: tensors.clear(),
    "one tensor is missing": lambda tensors: tensors.pop(next(iter(tensors))),
    "all A are missing": lambda tensors: [tensors.pop(name) for name in list(tensors) if ".lora_A." in name],
    "a tensor too many": lambda tensors: tensors.update(more=next(iter(tensors.values())).clone()),
    "numbers are integers": lambda tensors: tensors.update({name: each.int() for name, each in tensors.items()}),
    "a tensor is flat": lambda tensors: tensors.update({name: each.flatten() for name, each in tensors.items()}),
    "layers of a deeper model": lambda tensors: tensors.update(
        {name.replace("layers.1", "layers.7"): each.clone() for name, each in tensors.items()}
    ),
}

"""From `conf=NAME key=value …` to a checked Config.

Settings come in layers, each over the one before: the defaults of the schema, which are called `base`; the recipes
`conf/recipes/NAME.yaml`, each over the one that its `extends:` names; the command line. A layer that names an
`algorithm.preset` or `reward.preset` includes the preset's values, underneath its own settings. For an adapter in a
run's folder, the settings of that run replace the recipe.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf

from microbudget_rl.conf.arguments import pairs
from microbudget_rl.conf.catalogue import known_as, table
from microbudget_rl.conf.checks import check
from microbudget_rl.conf.errors import BadInput, hint
from microbudget_rl.conf.installation import packaged
from microbudget_rl.conf.parsing import FORMAT, check_format, drops, flatten, parse_yaml, read_yaml, reason, write_yaml
from microbudget_rl.conf.schema import AnyConfig, CommandLine, Config, SweepCommandLine, among, marked
from microbudget_rl.conf.settings import RULES, Place, build, changed, settings

Asked = TypeVar("Asked", bound=CommandLine)

Tree = dict[str, Any]
"""Nested mappings: sections, and values by their keys."""

Layer = tuple[str, Tree]
"""The file of a layer of settings, empty for the command line, and the layer."""

FOLDER = Path(__file__).parent / "recipes"

BASE = "base"
"""Name of the schema's defaults, on which every recipe is built."""

SUFFIX = ".yaml"

RECORD = "config.yaml"
"""File with the settings of a run, in its folder."""

MARK = ".microbudget-rl"
"""Name of the file that marks a folder as ours."""

RECORD_SECTIONS = {"run", "rollout", "learner"}
"""Sections that every run's RECORD has."""

PATHS = {item.path for item in settings(SweepCommandLine) if item.local_path}

TEXTS = {item.path: item.kind is not str for item in settings(SweepCommandLine) if item.kind in (str, str | None)}
"""Settings that are texts, each with whether it may be null."""

RESTORE = "the file is damaged: restore it, or begin the run again with run.overwrite=true"


def load(arguments: list[str], folder: Path = FOLDER) -> Config:
    """Return the settings of a run that the arguments of a command ask for; see `command_line`."""
    return command_line(arguments, CommandLine, folder).config


def command_line(arguments: list[str], kind: type[Asked], folder: Path = FOLDER) -> Asked:
    """Return all that the arguments of a command ask for. They must name a recipe, or an `adapter` of a run.

    Raises BadInput for a missing or unknown recipe, an unknown or repeated key, a wrong type, a value out of range, an
    impossible combination, and YAML that does not parse.
    """
    name, overrides = _parse(arguments, folder)
    given = ("", overrides)
    recipes = _recipes(name, folder, for_sweep=kind is SweepCommandLine) if name else []
    asked = _resolve([*recipes, given], kind)
    if run := run_of(asked.adapter):
        asked = _resolve([_of_run(run), ("", {"adapter": asked.adapter}), given], kind)
    elif not name:
        raise BadInput(
            "no conf=NAME given: start with conf=quickstart; `python launch/run.py help` lists the recipes "
            "and explains the settings"
        )
    asked = changed(asked, {"run.name": asked.run.name or bare(name), "device": known_as(asked.device)})
    check(asked)
    if (longest := asked.rollout.longest) > asked.learner.microbatch:
        asked = changed(asked, {"learner.tokens_per_microbatch": longest})
    return asked


def origins(arguments: list[str]) -> dict[str, str]:
    """Return the source of each setting that is not at its default, by key: a recipe, a preset, or the command line."""
    name, overrides = _parse(arguments, FOLDER)
    recipes = [(f"recipe {Path(file).stem}", layer) for file, layer in (_recipes(name, FOLDER) if name else ())]
    return _laid([*recipes, ("command line", overrides)])[1]


def check_one_run(arguments: list[str]) -> None:
    """Raise BadInput if a command line names the recipe of a sweep over models, and no model."""
    name, _ = _parse(arguments, FOLDER)
    if name and compares_models(name) and "model.path" not in origins(arguments):
        raise BadInput(
            f"conf={name} is the recipe of a sweep over models: python launch/sweep.py conf={name}, or give model.path"
        )


def compares_models(recipe: str, folder: Path = FOLDER) -> bool:
    """Whether a recipe states models of a sweep."""
    stated = [layer.get("sweep") for _, layer in _recipes(recipe, folder, for_sweep=True)]
    return any(isinstance(sweep, dict) and sweep.get("models") for sweep in stated)


def beyond(recipe: str, other: str, folder: Path = FOLDER) -> Tree:
    """Return the settings, by dotted key, of a recipe and those it extends which another recipe does not extend."""
    known = {file for file, _ in _recipes(other, folder)}
    return flatten(reduce(_merged, (layer for file, layer in _recipes(recipe, folder) if file not in known), {}))


def run_of(adapter: str) -> Path | None:
    """Return the folder of the run that contains an adapter, or is named instead; None for one made elsewhere."""
    try:
        path = Path(adapter).resolve()
        parents = (path, *path.parents) if adapter else ()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, a circle of links
        raise BadInput(f"adapter={adapter}: no such folder ({reason(error)}); name one with an adapter") from None
    return next((parent for parent in parents if recorded(parent) is not None), None)


def recorded(folder: Path) -> Config | None:
    """Return the settings of the run in a folder; None without a run, even if other software left a config.yaml.

    Raises BadInput if the folder has our MARK, and the file is damaged or does not state our format.
    """
    try:
        return read_record(folder / RECORD)
    except BadInput:
        if os.path.exists(folder / MARK) and os.path.lexists(folder / RECORD):
            raise
        return None


def read_record(file: Path) -> Config:
    """Return the settings of a run. Raises BadInput for a file that is damaged or of another format."""
    record = read_yaml(file, RESTORE)
    check_format(record, str(file))
    if not record.keys() >= RECORD_SECTIONS:
        raise BadInput(f"{file} has not all sections of a run; {RESTORE}")
    record.pop("format")
    config: Config = build(Config, record, lambda _: f"{file}: {RESTORE}: ", context=RULES)
    return config


def dump(config: Config) -> str:
    """Return the text of a run's RECORD."""
    return write_yaml({"format": FORMAT, **asdict(config)})


def public_settings(config: Config) -> Tree:
    """Return the settings as nested mappings, without the private ones."""
    nested = asdict(config)
    for path in marked("private"):
        take(nested, path)
    return nested


def bare(recipe: str) -> str:
    """Return the name of a recipe without the folder and the suffix of its file."""
    return Path(recipe).name.removesuffix(SUFFIX)


def recipe_names(folder: Path = FOLDER) -> list[str]:
    return sorted({BASE, *(path.stem for path in folder.glob(f"*{SUFFIX}"))})


def read_value(key: str, text: str, axis: bool = False) -> Any:
    """Return the value in `key=text`: a text as it is typed, or null; for any other setting, the value in YAML.

    axis: whether `[…]` stands for several values.
    Raises BadInput if the key cannot be a setting's, or if the text is not YAML or YAML would drop a part of it.
    """
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise BadInput(f"{key}={text}: {key!r} is not a setting; write it as key=value, such as lora.rank=8")
    try:
        text.encode()
        if key in TEXTS and not (axis and text.startswith("[") and text.endswith("]")):
            return None if text == "null" and TEXTS[key] else text
        value = parse_yaml(text, yaml.BaseLoader if key in TEXTS else None) if text else ""
        if drops(text):
            raise ValueError("a comment or a line break in it would be lost, the break is \\n in double quotes")
        return value
    except UnicodeEncodeError:
        raise BadInput(f"{key}={text}: not text in UTF-8; rename what it names, or give LC_ALL=C.UTF-8") from None
    except ValueError as error:
        raise BadInput(f"{key}={text}: not a value in YAML ({error}); quote it") from None


def written(key: str, value: Any) -> str:
    """Return the argument `key=…` from which `read_value` reads a value."""
    return f"{key}={value if isinstance(value, str) and key in TEXTS else json.dumps(value, ensure_ascii=False)}"


def _parse(arguments: list[str], folder: Path) -> tuple[str, Tree]:
    """Return the recipe's name, empty if there is none, and the overrides."""
    known = [*(f"conf={name}" for name in recipe_names(folder)), *(item.path for item in settings(CommandLine))]
    given = pairs(arguments, "conf=quickstart or lora.rank=8", known)
    for key, other in combinations(sorted(given), 2):
        if other.startswith(f"{key}."):
            raise BadInput(f"{other}={given[other]}: {key}={given[key]} is on the same command line; keep one of them")
    name = given.pop("conf", "")
    overrides: Tree = {}
    for key, text in given.items():
        value = read_value(key, text)
        for part in reversed(key.split(".")):
            value = {part: value}
        overrides = _merged(overrides, value)
    return name, overrides


def _recipes(name: str, folder: Path, for_sweep: bool = False) -> list[Layer]:
    """Return a recipe and all recipes that it extends, the most basic one first. A name that ends with SUFFIX is the
    path of a recipe's file, from the file that extends it or the working directory. Paths in a recipe are relative to
    its file. for_sweep: whether the recipe itself keeps its section `sweep`.
    """
    chain: list[Layer] = []
    visited: list[Path] = []
    requested, known, place = f"conf={name}", recipe_names(folder), Path()
    parent: Any = name
    while parent not in (None, BASE):
        is_path = str(parent).endswith(SUFFIX)
        path = packaged(place / str(parent)) if is_path else folder / f"{parent}{SUFFIX}"
        if path.resolve() in visited:
            raise BadInput(f"{requested} closes a circle; end it at {BASE}")
        if is_path and not path.is_file():
            raise BadInput(f"{requested}: there is no file {path}; correct the path, or name a recipe")
        if not is_path and parent not in known:
            raise BadInput(f"{requested}: no such recipe; {hint(str(parent), known)}all: {', '.join(known)}")
        visited.append(path.resolve())
        layer = _anchored(read_yaml(path, "write `section:` and `key: value` lines"), path.parent)
        parent, place = layer.pop("extends", None), path.parent
        if chain or not for_sweep:
            layer.pop("sweep", None)
        requested = f"{path}: extends: {parent}"
        chain.insert(0, (str(path), layer))
    return chain


def _anchored(layer: Tree, folder: Path) -> Tree:
    """Return the settings of a recipe with absolute paths. folder: the recipe's."""

    def absolute(text: str, key: str) -> str:
        path = text.removeprefix("file:")
        is_path = key in PATHS and ("model" not in key or os.path.isdir(folder / path))  # or a model's name
        if key.endswith(("source", "benchmarks")):
            is_path = path != text
        relative = is_path and path and not path.startswith("~")
        return text.removesuffix(path) + os.path.abspath(folder / path) if relative else text

    return with_texts(layer, absolute)


def unmoved(value: Any) -> Any:
    """Return a value with the names of source files without their folders."""
    return with_texts(value, lambda text, _: f"file:{Path(text).name}" if text.startswith("file:") else text)


def with_texts(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """Return a value, or nested ones, with texts changed by a function of the text and its dotted key."""
    if isinstance(value, dict):
        return {name: with_texts(item, change, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list):
        return [with_texts(item, change, key) for item in value]
    return change(value, key) if isinstance(value, str) else value


def _of_run(run: Path) -> Layer:
    """Return a run's recorded settings, with its folder's present name and place and without the device."""
    record = asdict(read_record(run / RECORD))
    del record["device"]
    record["run"] |= {"name": run.name, "folder": str(run.parent), "overwrite": False}
    return str(run / RECORD), record


def _resolve(layers: list[Layer], kind: type[AnyConfig]) -> AnyConfig:
    """Merge layers over the defaults. Raises BadInput with a line for each fault, and with its file if it is in one."""
    tree, files = _laid(layers)

    def where(place: Place) -> str:
        path = ".".join(map(str, place))
        file = next((files[key] for key in files if among(key, (path,)) or among(path, (key,))), "")
        return f"{file}: " if file else ""

    resolved: AnyConfig = build(kind, tree, where, context=RULES)
    return resolved


def _laid(layers: list[Layer]) -> tuple[Tree, dict[str, str]]:
    """Return the layers and their presets merged in order, and the source of each key: a file or a preset."""
    tree: Tree = {}
    files: dict[str, str] = {}
    for file, layer in layers:
        if flatten(layer).get("data.mixture"):
            layer = _merged({"data": {"source": ""}}, layer)
        stated = flatten(layer)
        for item in settings(CommandLine):
            if item.follows in stated:
                take(tree, item.path)
        parts = [(file, layer)]
        if stated.get("run.deterministic") is True:
            parts.insert(0, (file, {"learner": {"max_staleness": 0, "max_kl": 0.0}}))
        for section, known in (("algorithm", table("algorithms")), ("reward", table("rewards"))):
            if (name := str(stated.get(f"{section}.preset"))) in known:
                parts.insert(0, (f"preset {name}", {section: known[name]}))
        for source, part in parts:
            tree = _merged(tree, part)
            files |= dict.fromkeys(flatten(part), source)
    return tree, {key: files[key] for key in flatten(tree) if key in files}


def take(tree: Tree, key: str) -> None:
    """Remove the value of a dotted key, if it is there, and sections that become empty."""
    first, _, rest = key.partition(".")
    if rest and isinstance(tree.get(first), dict):
        take(tree[first], rest)
    if not rest or tree.get(first) == {}:
        tree.pop(first, None)


class Leaf:
    """A value that OmegaConf does not touch: of plain ones it refuses a text with `${` alone and skips `???`."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _merged(*layers: Tree) -> Tree:
    """Return nested mappings merged by OmegaConf, later ones over earlier ones; a list is one value."""
    trees = (OmegaConf.create(_wrapped(layer), flags={"allow_objects": True}) for layer in layers)
    return _unwrapped(OmegaConf.to_container(OmegaConf.unsafe_merge(*trees)))


def _wrapped(tree: Tree, section: bool = False) -> Tree:
    """section: whether the tree is a section, in which an empty mapping replaces another one."""
    return {
        key: _wrapped(value, section=True) if isinstance(value, dict) and (value or not section) else Leaf(value)
        for key, value in tree.items()
    }


def _unwrapped(tree: Any) -> Tree:
    return {key: _unwrapped(value) if isinstance(value, dict) else value.value for key, value in tree.items()}

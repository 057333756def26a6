"""From `conf=NAME key=value …` to a checked Config.

Settings come in layers, each over the one before: the defaults of the schema, which are called `base`; the recipes
`conf/recipes/NAME.yaml`, each over the one that its `extends:` names; the command line. A layer that names an
`algorithm.preset` or `reward.preset` includes what that sets, underneath its own settings. Under an adapter of a run,
the settings of that run stand in the recipe's place.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.arguments import pairs
from conf.checks import check
from conf.departed import translated, without_departed
from conf.devices import known_as
from conf.documents import line_of, parse_yaml, read_yaml, reason
from conf.errors import BadInput
from conf.presets import presets, reward_presets
from conf.schema import PRIVATE, Config, ShapeConfig
from conf.settings import expected, fits, settings, show
from conf.suggestions import hint, nearest

Layer = tuple[str, dict[str, Any]]
"""Settings, and the file they come from, empty for the command line."""

_defaults: Callable[[Any], DictConfig] = cache(OmegaConf.structured)
"""What a section begins as. It is made once, which takes long, and laid under copies: never change it."""

FOLDER = Path(__file__).parent / "recipes"

BASE = "base"
"""Name of the schema's defaults, on which every recipe is built."""

SUPERSEDES: dict[tuple[str, str], dict[str, Any]] = {
    ("budget", "hours"): {"minutes": None},
    ("model", "path"): {"shape": asdict(ShapeConfig()), "stop_tokens": []},
    ("data", "source"): {"parameters": {}, "problem_field": "", "answer_field": "", "problem_pattern": ""},
}
"""A layer that sets the first key without its neighbours returns these to their defaults: the hours
a person asks for are not overruled by a recipe's minutes, a shape belongs to the model it was declared with, and
columns and patterns to the data they were written for."""

RECORD = "config.yaml"
"""In a run's folder: its settings."""

RESTORE = "restore the file, or begin the run anew with run.overwrite=true"

CLOCK_TIME = re.compile(r"\d+(:\d\d)+")

MOST_ARGUMENTS = 500
"""On a command line; there are fewer settings."""


def load(arguments: list[str], folder: Path = FOLDER, kind: type[Config] = Config) -> Config:
    """Return the configuration that the arguments of a command ask for. Without `adapter` of a run, they must name a
    recipe.

    Raises BadInput for a missing or unknown recipe, an unknown or repeated key, a wrong type, a value out of range, an
    impossible combination, and YAML that does not parse.
    """
    name, overrides = _parse(arguments, folder)
    given = ("", overrides)
    config = _resolve([*(_recipes(name, folder) if name else ()), given], kind)
    if run := run_of(config.adapter):
        config = _resolve([_of_run(run, config.adapter), given], kind)
    elif not name:
        raise BadInput(
            f"no conf=NAME given: start with conf=quickstart, or choose from {', '.join(recipe_names(folder))}; "
            "`python launch/run.py help` explains the settings"
        )
    config.run.name = config.run.name or name
    config.device = known_as(config.device)
    check(config)
    config.lora.settle_alpha()
    return config


def origins(arguments: list[str], folder: Path = FOLDER) -> dict[str, str]:
    """Return where the value of each setting that is not at its default comes from, by key: a recipe, a preset, or the
    command line.
    """
    name, overrides = _parse(arguments, folder)
    found: dict[str, str] = {}
    for file, layer in [*(_recipes(name, folder) if name else ()), ("", overrides)]:
        source = f"recipe {Path(file).stem}" if file else "command line"
        for (section, key), neighbours in SUPERSEDES.items():
            if key in layer.get(section, {}):
                gone = {f"{section}.{neighbour}" for neighbour in neighbours}
                found = {path: at for path, at in found.items() if ".".join(path.split(".")[:2]) not in gone}
        for section, known in (("algorithm", presets()), ("reward", reward_presets())):
            preset = layer.get(section, {}).get("preset")
            found |= {f"{section}.{key}": f"preset {preset}" for key in known.get(str(preset), {})}
        found |= dict.fromkeys(flatten(layer), source)
    return found


def run_of(adapter: str) -> Path | None:
    """Return the folder of the run that an adapter lies in, wherever links lead; None for one made elsewhere."""
    try:
        parents = Path(adapter).resolve().parents if adapter else ()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, a circle of links
        raise BadInput(f"adapter={adapter}: no such folder ({reason(error)}); name one with an adapter") from None
    return next((parent for parent in parents if recorded(parent)), None)


def settings_of(adapter: Path) -> Config:
    """Return the settings of the run that an adapter lies in, as they are: rules that are younger than the run do not
    matter to what it has trained.
    """
    run = run_of(str(adapter))
    if run is None:
        raise BadInput(f"{adapter} lies in no run's folder: name one that does")
    return _resolve([_of_run(run, str(adapter))], Config)


def recorded(folder: Path) -> dict[str, Any]:
    """Return the settings of the run in a folder; empty if there is none, also if other software has left a
    config.yaml. Raises BadInput for a run's whose values are damaged.
    """
    try:
        record = read_yaml(folder / RECORD, RESTORE)
    except BadInput:
        return {}
    return read_record(folder / RECORD) if {"run", "rollout", "learner"} <= record.keys() else {}


def read_record(file: Path) -> dict[str, Any]:
    """Return the settings of a run as nested mappings, under today's names: see `conf/departed.py`.

    Raises BadInput for a file that is damaged, or a value that its setting cannot have.
    """
    record = translated(read_yaml(file, RESTORE))
    _check_record(record, Config, "", file)
    return record


def _check_record(section: Any, kind: Any, prefix: str, file: Path) -> None:
    if not isinstance(section, dict):
        raise BadInput(f"{file}: {prefix[:-1]}={show(section)}: that is a section; {RESTORE}")
    for field in fields(kind):
        if field.name not in section:
            continue
        value = section[field.name]
        if is_dataclass(field.type):
            _check_record(value, field.type, f"{prefix}{field.name}.", file)
        elif not fits(value, field.type):
            raise BadInput(f"{file}: {prefix}{field.name}={show(value)}: expected {expected(field.type)}; {RESTORE}")


def check_departed(file: Path, record: dict[str, Any]) -> None:
    """Raise BadInput for the settings of a run's record that this version of the project does not have.

    file: that the record was read from.
    """
    known = {item.path for item in settings(Config)}
    gone = [key for key in flatten(record) if not any(f"{key}.".startswith(f"{path}.") for path in known)]
    if gone:
        text = file.read_text()
        lines = ", ".join(f"line {line_of(text, key)} ({key})" for key in gone)
        raise BadInput(
            f"{file}: {lines}: this version of the project has no such setting; delete it there if the run may do "
            "without, or use the version that the run was made with"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def dump(config: Config) -> str:
    """Return the whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def public_settings(config: Config) -> dict[str, Any]:
    """Return the settings as nested mappings, without those that are its owner's business."""
    nested: dict[str, Any] = parse_yaml(dump(config))
    for path in PRIVATE:
        section, _, key = path.rpartition(".")
        (nested[section] if section else nested).pop(key)
    return nested


def recipe_names(folder: Path = FOLDER) -> list[str]:
    return sorted({BASE, *(path.stem for path in folder.glob("*.yaml"))})


def override(key: str, value: str) -> DictConfig:
    """Return the nested mapping that `key=value` stands for; raises BadInput for a key that no setting has the form of,
    or a value that is not YAML.
    """
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*(\[\w*\])*", key):
        raise BadInput(f"{key}={value}: {key!r} is not a setting; write it as key=value, such as lora.rank=8")
    try:
        value.encode()
        parsed = OmegaConf.create()
        OmegaConf.update(parsed, key, parse_yaml(value) if value else "")
    except UnicodeEncodeError:
        raise BadInput(f"{key}={value}: not text in UTF-8; rename what it names, or give LC_ALL=C.UTF-8") from None
    except (ValueError, OmegaConfBaseException) as error:
        raise BadInput(f"{key}={value}: not a value in YAML ({_first_line(error)}); quote it") from None
    return parsed


def _parse(arguments: list[str], folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the recipe's name, empty if there is none, and the overrides as one nested mapping."""
    if len(arguments) > MOST_ARGUMENTS:
        raise BadInput(f"{len(arguments)} arguments: give {MOST_ARGUMENTS} at most, and the rest in a recipe")
    known = [*(f"conf={name}" for name in recipe_names(folder)), *(item.path for item in settings(Config))]
    given = pairs(arguments, "conf=quickstart or lora.rank=8", known)
    keys = sorted(given)
    for key, other in combinations(keys, 2):
        if f"{other}.".startswith(f"{key}."):
            raise BadInput(f"{other}={given[other]}: {key}={given[key]} is on the same command line; keep one of them")
    name = given.pop("conf", "")
    overrides = [override(key, value) for key, value in given.items()]
    return name, OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(), *overrides))  # type: ignore[return-value]  # a mapping


def _recipes(name: str, folder: Path) -> list[Layer]:
    """Return the recipe and those it extends, the last of them first."""
    chain: list[Layer] = []
    visited: list[str] = []
    asked, known = f"conf={name}", recipe_names(folder)
    parent: Any = name
    while parent not in (None, BASE):
        if parent in visited:
            raise BadInput(f"{asked} closes a circle; end it at {BASE}")
        if parent not in known:
            raise BadInput(f"{asked}: no such recipe; {hint(str(parent), known)}all: {', '.join(known)}")
        visited.append(parent)
        path = folder / f"{parent}.yaml"
        layer = read_yaml(path, "write `section:` and `key: value` lines")
        parent = layer.pop("extends", None)
        asked = f"{path}: extends: {parent}"
        chain.insert(0, (str(path), layer))
    return chain


def _of_run(run: Path, adapter: str) -> Layer:
    """Return what a run was begun with, under its folder's present name and place; the machine may be another."""
    record = without_departed(recorded(run)) | {"adapter": adapter}
    record.pop("device", None)
    check_departed(run / RECORD, record)
    record["run"] |= {"name": run.name, "folder": str(run.parent), "overwrite": False}
    return str(run / RECORD), _literal(record)


def _literal(value: Any) -> Any:
    """Return a value whose every `${` stands for itself."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _resolve(layers: Iterable[Layer], kind: type[Config]) -> Config:
    """Lay the layers over one another, and all of them over the defaults."""
    config = _defaults(kind)
    for file, layer in layers:
        where = f"{file}: " if file else ""
        _check_keys(layer, kind, "", where, [item.path for item in settings(kind)])
        for (section, key), neighbours in SUPERSEDES.items():
            if key in layer.get(section, {}):
                layer[section] = {**neighbours, **layer[section]}
                for name in (name for name, value in neighbours.items() if value == {}):
                    config[section][name] = {}  # a merge would keep what is in it
        if layer.get("run", {}).get("deterministic") is True:
            layer["learner"] = {"max_staleness": 0, **layer.get("learner", {})}
        for section, known in (("algorithm", presets()), ("reward", reward_presets())):
            if "preset" in (given := layer.get(section, {})):
                layer[section] = {**known.get(str(given["preset"]), {}), **given}
        config = _convert(config, layer, kind, "", where)
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]  # made of kind
    except OmegaConfBaseException as error:
        raise BadInput(
            f"{error.full_key or 'conf'}: {_first_line(error)}; write a literal ${{ as \\${{ in a value"
        ) from None


def _check_keys(layer: Any, kind: Any, path: str, where: str, known: list[str]) -> None:
    """Raise BadInput for a key the schema does not have, a section given as a plain value, or a list as a mapping.

    kind, path: the section that the layer is for. where: the file, for messages. known: all keys, to suggest some.
    """
    kinds = {field.name: field.type for field in fields(kind)}
    if not isinstance(layer, dict):
        raise BadInput(f"{where}{path}={show(layer)}: that is a section; set its keys: {', '.join(kinds)}")
    for key, value in layer.items():
        inner = f"{path}.{key}" if path else str(key)
        if key not in kinds:
            close = nearest(inner, known)
            remedy = f"nearest: {', '.join(close)}" if close else "`python launch/run.py help` lists them"
            raise BadInput(f"{where}{inner}: no such key; {remedy}")
        if is_dataclass(kinds[key]):
            _check_keys(value, kinds[key], inner, where, known)
        elif not fits(value, kinds[key]):
            clock = ", such as 1.5 for 1:30" if CLOCK_TIME.fullmatch(str(value)) else ""
            raise BadInput(f"{where}{inner}={show(value)}: expected {expected(kinds[key])}{clock}")
        elif isinstance(value, list) and get_origin(kinds[key]) is list and is_dataclass(get_args(kinds[key])[0]):
            record: Any = get_args(kinds[key])[0]
            for number, entry in enumerate(value):
                item = f"{inner}[{number}]"
                _check_keys(entry, record, item, where, [f"{item}.{field.name}" for field in fields(record)])
                _convert(_defaults(record), entry, record, f"{item}.", where)


def _convert(below: DictConfig, layer: dict[str, Any], kind: Any, prefix: str, where: str) -> DictConfig:
    """Merge a layer over a section; raises BadInput for a value of the wrong type."""
    try:
        return OmegaConf.merge(below, layer)  # type: ignore[return-value]  # of a mapping
    except OmegaConfBaseException as error:
        path, value = str(error.full_key).partition("[")[0], layer
        for part in path.split("."):
            value = value[part]
            kind = next(field.type for field in fields(kind) if field.name == part) if is_dataclass(kind) else kind
        raise BadInput(f"{where}{prefix}{path}={show(value)}: expected {expected(kind)}") from None


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]

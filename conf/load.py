"""From `conf=NAME key=value …` to a checked Config.

A recipe is `conf/NAME.yaml`; its `extends: OTHER` names the recipe it builds on, down to base.yaml. The command line is
the last layer. A layer that names an `algorithm.preset` or `reward.preset` includes what that sets, underneath its own
settings. Under an adapter of a run, the settings of that run stand in the recipe's place.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.algorithms import presets, reward_presets
from conf.checks import check
from conf.errors import BadInput
from conf.nearest import nearest
from conf.schema import Config, ShapeConfig

T = TypeVar("T")

Layer = tuple[str, dict[str, Any]]
"""Settings, and the file they come from, empty for the command line."""

FOLDER = Path(__file__).parent / "recipes"

SUPERSEDES: dict[tuple[str, str], dict[str, Any]] = {
    ("budget", "hours"): {"minutes": None},
    ("model", "path"): {"shape": asdict(ShapeConfig()), "stop_tokens": []},
}
"""A layer that sets the first key without its neighbours returns these to their defaults: the hours a person asks for
are not overruled by a recipe's minutes, and a shape belongs to the model it was declared with."""

RECORD = "config.yaml"
"""In a run's folder: its settings."""

TYPE_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def load(arguments: list[str], folder: Path = FOLDER) -> Config:
    """The configuration that the arguments of a command ask for. Without `adapter` of a run, they must name a recipe.

    Raises BadInput for a missing or unknown recipe, an unknown or repeated key, a wrong type, a value out of range, an
    impossible combination, and YAML that does not parse.
    """
    name, overrides = _parse(arguments)
    given = ("", overrides)
    config = _resolve([*(_recipes(name, folder) if name else ()), given])
    if run := run_of(config.adapter):
        config = _resolve([_of_run(run, config.adapter), given])
    elif not name:
        raise BadInput(f"no conf=NAME given: start with conf=quickstart, or choose from {_listing(folder)}")
    config.run.name = config.run.name or name
    check(config)
    return config


def run_of(adapter: str) -> Path | None:
    """The folder of the run that an adapter's folder lies in, wherever links lead; None for one made elsewhere."""
    parents = Path(adapter).resolve().parents if adapter else ()
    return next((parent for parent in parents if recorded(parent)), None)


def recorded(folder: Path) -> dict[str, Any]:
    """The settings of the run in a folder; empty if there is none, also if other software has left a config.yaml."""
    try:
        settings = yaml.safe_load((folder / RECORD).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) and {"run", "rollout", "learner"} <= settings.keys() else {}


def dump(config: Config) -> str:
    """The whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def recipe_names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_section(kind: type[T], name: str, arguments: list[str]) -> T:
    """Settings of a section that no run has, given as `name.key=value`; raises BadInput for those it does not have."""
    settings: Any = OmegaConf.structured(kind)
    for argument in arguments:
        key, _, value = argument.partition("=")
        layer: Any = OmegaConf.to_container(override(key, value))[name]  # type: ignore[call-overload, index]  # a mapping
        if unknown := [given for given in layer if given not in get_type_hints(kind)]:
            known = [f"{name}.{field.name}" for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
            raise BadInput(f"{name}.{unknown[0]}: no such key; all: {', '.join(known)}")
        settings = _convert(settings, layer, kind, f"{name}.", "")
    return OmegaConf.to_object(settings)  # type: ignore[return-value]  # made of kind


def keys(kind: type = Config, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all settings, sections left out."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from keys(hint, f"{prefix}{name}.")  # type: ignore[arg-type]  # just seen to be a dataclass
        else:
            yield prefix + name


def _resolve(layers: Iterable[Layer]) -> Config:
    """The layers one over the other, over the defaults."""
    config = OmegaConf.structured(Config)
    for where, layer in layers:
        config = _merge(config, layer, where)
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]  # made of Config
    except OmegaConfBaseException as error:
        raise BadInput(
            f"{error.full_key or 'conf'}: {_first_line(error)}; write a literal ${{ as \\${{ in a value"
        ) from None


def _of_run(run: Path, adapter: str) -> Layer:
    """What a run was begun with, under the name and in the place its folder has now; the machine may be another."""
    settings = {key: value for key, value in recorded(run).items() if key != "device"} | {"adapter": adapter}
    settings["run"] |= {"name": run.name, "folder": str(run.parent), "overwrite": False}
    return str(run / RECORD), _literal(settings)


def _literal(value: Any) -> Any:
    """A value whose every `${` stands for itself."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The recipe's name, empty if there is none, and the overrides as one nested mapping."""
    seen: dict[str, str] = {}
    overrides: Any = OmegaConf.create()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise BadInput(f"argument {argument!r}: write it as key=value, such as conf=quickstart or lora.rank=8")
        if rival := next((k for k in seen if _overlap(k, key)), None):
            raise BadInput(f"{key}={value}: {rival}={seen[rival]} is on the same command line; keep one of them")
        seen[key] = value
        if key != "conf":
            overrides = OmegaConf.merge(overrides, override(key, value))
    return seen.get("conf", ""), OmegaConf.to_container(overrides)  # type: ignore[return-value]  # a mapping


def override(key: str, value: str) -> DictConfig:
    """The nested mapping that `key=value` stands for; raises BadInput for a key that no setting has the form of, or a
    value that is not YAML.
    """
    if not re.fullmatch(r"[\w.-]+(\[\w*\])*", key):
        raise BadInput(f"{key}={value}: {key!r} is not a setting; write it as key=value, such as lora.rank=8")
    try:
        parsed = OmegaConf.from_dotlist([f"{key}={value}"])
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise BadInput(f"{key}={value}: not a value in YAML ({_first_line(error)}); quote it") from None
    if value == "":
        OmegaConf.update(parsed, key, "")
    return parsed


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted paths are the same or one lies within the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _recipes(name: str, folder: Path) -> list[Layer]:
    """The recipe and those it extends, root first, each with the file it comes from."""
    chain: list[Layer] = []
    visited: list[str] = []
    parent: Any = name
    while parent is not None:
        if parent in visited:
            raise BadInput(f"{folder / (visited[-1] + '.yaml')}: extends: {parent} closes a circle; end it at base")
        if parent not in recipe_names(folder):
            where = f"{folder / (visited[-1] + '.yaml')}: extends: {parent}" if visited else f"conf={parent}"
            close = nearest(str(parent), recipe_names(folder))
            hint = f"nearest: {', '.join(close)}; " if close else ""
            raise BadInput(f"{where}: no such recipe; {hint}all: {_listing(folder)}")
        visited.append(parent)
        path = folder / f"{parent}.yaml"
        layer = _read(path)
        parent = layer.pop("extends", None)
        chain.append((str(path), layer))
    return chain[::-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        layer = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid YAML: {error}") from None
    if not isinstance(layer, dict):
        raise BadInput(f"{path}: holds a {type(layer).__name__}, not settings; write `section:` and `key: value` lines")
    return {str(key): value for key, value in layer.items()}


def _merge(config: DictConfig, layer: dict[str, Any], where: str) -> DictConfig:
    """The configuration with one more layer on top; `where` is its file, empty for the command line."""
    where = f"{where}: " if where else ""
    _check_keys(layer, Config, "", where)
    for (section, key), neighbours in SUPERSEDES.items():
        if key in layer.get(section, {}):
            layer[section] = {**neighbours, **layer[section]}
    for section, known in (("algorithm", presets()), ("reward", reward_presets())):
        if "preset" in (settings := layer.get(section, {})):
            layer[section] = {**known.get(str(settings["preset"]), {}), **settings}
    return _convert(config, layer, Config, "", where)


def _convert(below: DictConfig, layer: dict[str, Any], kind: type, prefix: str, where: str) -> DictConfig:
    """The settings of a section with a layer merged over them; raises BadInput for a value of the wrong type."""
    try:
        return OmegaConf.merge(below, layer)  # type: ignore[return-value]  # of a mapping
    except OmegaConfBaseException as error:
        path = str(error.full_key).partition("[")[0]
        raise BadInput(f"{where}{prefix}{path}={_show(_at(layer, path))}: expected {_expected(kind, path)}") from None


def _at(layer: dict[str, Any], path: str) -> Any:
    value: Any = layer
    for part in path.split("."):
        value = value[part]
    return value


def _check_keys(layer: dict[Any, Any], kind: type, prefix: str, where: str) -> None:
    """Raise BadInput for a key the schema does not have, a section given as a plain value, or a list as a mapping."""
    hints = get_type_hints(kind)
    for key, value in layer.items():
        path = f"{prefix}{key}"
        if key not in hints:
            close = nearest(path, keys(kind, prefix) if "[" in prefix else keys())
            remedy = f"nearest: {', '.join(close)}" if close else "conf/schema.py explains every key"
            raise BadInput(f"{where}{path}: no such key; {remedy}")
        if is_dataclass(hints[key]):
            _check_section(value, hints[key], path, where)
        elif {get_origin(hints[key]), type(value)} == {list, dict}:
            raise BadInput(f"{where}{path}={_show(value)}: expected {_expected(kind, key)}")
        elif isinstance(value, list) and get_origin(hints[key]) is list and is_dataclass(get_args(hints[key])[0]):
            item = get_args(hints[key])[0]
            for number, entry in enumerate(value):
                _check_section(entry, item, f"{path}[{number}]", where)
                _convert(OmegaConf.structured(item), entry, item, f"{path}[{number}].", where)


def _check_section(value: Any, kind: type, path: str, where: str) -> None:
    if not isinstance(value, dict):
        inner = ", ".join(f.name for f in fields(kind))
        raise BadInput(f"{where}{path}={_show(value)}: that is a section; set its keys: {inner}")
    _check_keys(value, kind, f"{path}.", where)


def _expected(section: type, path: str) -> str:
    """What a key of a section takes, in words."""
    hint: Any = section
    for part in path.split("."):
        hint = get_type_hints(hint)[part] if is_dataclass(hint) else hint
    optional = type(None) in get_args(hint)
    kind: Any = get_args(hint)[0] if optional else hint
    if kind in TYPE_WORDS:
        words = TYPE_WORDS[kind]
    elif get_origin(kind) is dict:
        words = "a mapping such as {a: 1}"
    elif is_dataclass(item := get_args(kind)[0]):
        words = f"a list of {{{', '.join(f'{field.name}: …' for field in fields(item))}}}"
    else:
        words = "a list such as [a,b]"
    return f"{words} or null" if optional else words


def _show(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listing(folder: Path) -> str:
    return ", ".join(recipe_names(folder))


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]

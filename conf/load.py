"""From `conf=NAME key=value …` to a checked Config.

Settings come in layers, each over the one before: the defaults of the schema, which are called `base`; the recipes
`conf/recipes/NAME.yaml`, each over the one that its `extends:` names; the command line. A layer that names an
`algorithm.preset` or `reward.preset` includes what that sets, underneath its own settings. Under an adapter of a run,
the settings of that run stand in the recipe's place.
"""

import re
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from conf.arguments import pairs
from conf.checks import check
from conf.departed import translated, without_departed
from conf.devices import known_as
from conf.documents import line_of, parse_yaml, read_yaml, reason, write_yaml
from conf.errors import BadInput
from conf.presets import presets, reward_presets
from conf.schema import PRIVATE, Config
from conf.settings import RULES, Place, build, settings
from conf.suggestions import hint

Tree = dict[str, Any]
"""Nested mappings: sections, and values by their keys."""

Layer = tuple[str, Tree]
"""Settings, and the file they come from, empty for the command line."""

FOLDER = Path(__file__).parent / "recipes"

BASE = "base"
"""Name of the schema's defaults, on which every recipe is built."""

RECORD = "config.yaml"
"""In a run's folder: its settings."""

RESTORE = "restore the file, or begin the run anew with run.overwrite=true"

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
    config = _resolve([*(_recipes(name, folder) if name else ()), given], kind, rules=True)
    if run := run_of(config.adapter):
        config = _resolve([_of_run(run, config.adapter), given], kind, rules=True)
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
    recipes = [(f"recipe {Path(file).stem}", layer) for file, layer in (_recipes(name, folder) if name else ())]
    return _laid([*recipes, ("command line", overrides)])[1]


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
    build(Config, record, lambda _: f"{file} is damaged ({RESTORE}): ", extra="ignore")
    return record


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
    return write_yaml(asdict(config))


def public_settings(config: Config) -> dict[str, Any]:
    """Return the settings as nested mappings, without those that are its owner's business."""
    nested = asdict(config)
    for path in PRIVATE:
        section, _, key = path.rpartition(".")
        del (nested[section] if section else nested)[key]
    return {key: value for key, value in nested.items() if value != {}}


def recipe_names(folder: Path = FOLDER) -> list[str]:
    return sorted({BASE, *(path.stem for path in folder.glob("*.yaml"))})


def read_value(key: str, text: str) -> Any:
    """Return what the text in `key=text` stands for; raises BadInput for a key that no setting has the form of, or a
    text that is not YAML.
    """
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*(\[\w*\])*", key):
        raise BadInput(f"{key}={text}: {key!r} is not a setting; write it as key=value, such as lora.rank=8")
    try:
        text.encode()
        return parse_yaml(text) if text else ""
    except UnicodeEncodeError:
        raise BadInput(f"{key}={text}: not text in UTF-8; rename what it names, or give LC_ALL=C.UTF-8") from None
    except ValueError as error:
        raise BadInput(f"{key}={text}: not a value in YAML ({error}); quote it") from None


def _parse(arguments: list[str], folder: Path) -> tuple[str, Tree]:
    """Return the recipe's name, empty if there is none, and the overrides."""
    if len(arguments) > MOST_ARGUMENTS:
        raise BadInput(f"{len(arguments)} arguments: give {MOST_ARGUMENTS} at most, and the rest in a recipe")
    known = [*(f"conf={name}" for name in recipe_names(folder)), *(item.path for item in settings(Config))]
    given = pairs(arguments, "conf=quickstart or lora.rank=8", known)
    keys = sorted(given)
    for key, other in combinations(keys, 2):
        if f"{other}.".startswith(f"{key}."):
            raise BadInput(f"{other}={given[other]}: {key}={given[key]} is on the same command line; keep one of them")
    name = given.pop("conf", "")
    overrides: Tree = {}
    for key, text in given.items():
        value = read_value(key, text)
        for part in reversed(re.split(r"[.\[]", key.replace("]", ""))):
            value = {part: value}
        overrides = _merged(overrides, value)
    return name, overrides


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
    return str(run / RECORD), record


def _resolve(layers: list[Layer], kind: type[Config], rules: bool = False) -> Config:
    """Lay the layers over one another and over the defaults. rules: whether what a value may be counts, besides types.

    Raises BadInput for everything that is wrong, a line for each, with the file where it is not the command line.
    """
    tree, files = _laid(layers)

    def where(place: Place) -> str:
        path = ".".join(map(str, place)) + "."
        file = next((files[key] for key in files if f"{key}.".startswith(path) or path.startswith(f"{key}.")), "")
        return f"{file}: " if file else ""

    config: Config = build(kind, tree, where, context=RULES if rules else None)
    return config


def _laid(layers: list[Layer]) -> tuple[Tree, dict[str, str]]:
    """Return layers laid over one another with what their settings include, and by dotted key the file, or preset, that
    each value comes from.
    """
    tree: Tree = {}
    files: dict[str, str] = {}
    owners = [item for item in settings(Config) if item.replaces]
    for file, layer in layers:
        for owner in owners:
            section, _, key = owner.path.partition(".")
            for name in owner.replaces if key in _part(layer, section) else ():
                _part(tree, section).pop(name, None)
        parts = [(file, layer)]
        if _part(layer, "run").get("deterministic") is True:
            parts.insert(0, (file, {"learner": {"max_staleness": 0}}))
        for section, known in (("algorithm", presets()), ("reward", reward_presets())):
            if (name := str(_part(layer, section).get("preset"))) in known:
                parts.insert(0, (f"preset {name}", {section: known[name]}))
        for source, part in parts:
            tree = _merged(tree, part)
            files |= dict.fromkeys(flatten(part), source)
    return tree, {key: files[key] for key in flatten(tree) if key in files}


def _merged(below: Tree, above: Tree) -> Tree:
    """Return nested mappings laid over others; lists are values as a whole."""
    inner = {key: _merged(_part(below, key), value) for key, value in above.items() if isinstance(value, dict)}
    return {**below, **above, **inner}


def _part(tree: Tree, section: str) -> Tree:
    """Return a mapping within a mapping; an empty one if it is missing, or something else stands there."""
    part = tree.get(section)
    return part if isinstance(part, dict) else {}

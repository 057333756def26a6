"""Checks adapters to start a run from or to evaluate: vLLM must serve them, and they must be made for this model."""

import math
import os
import re
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

from microbudget_rl.actors.models.files import HUB_NAMES, config_folder, name_on_hub, pin_of
from microbudget_rl.actors.models.text_part import OWN, STORED, adapter_shapes
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import parse_json, read_text
from microbudget_rl.conf.schema import AnyConfig, Config, ShapeConfig
from microbudget_rl.conf.schema.model import MODULE_NAMES, PIN, VLLM_RANKS
from microbudget_rl.conf.settings import MOST, changed

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)

ANY_VALUE = {
    *("r", "lora_alpha", "use_rslora", "target_modules", "base_model_name_or_path"),  # read here
    "exclude_modules",  # the names of the weights say as much
    *("task_type", "revision", "auto_mapping", "inference_mode", "peft_version", "megatron_core", "layers_pattern"),
    *("lora_dropout", "loftq_config", "eva_config", "qalora_group_size"),  # of training, or of features that are off
}
"""Keys of adapter_config.json that may have any value in a plain LoRA."""

PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}
"""Keys that must have one of these values. (The other inits of PEFT change the base model's weights.)"""

OFF: tuple[Any, ...] = (None, False, [], {})
"""Accepted values of all other keys: vLLM or the learner lacks whatever else PEFT can do."""

FLOATS = ("F64", "F32", "BF16", "F16")
"""Accepted types of weights, by their names in safetensors."""

Module = Annotated[str, Field(pattern=rf"^(.*\.)?({'|'.join(MODULE_NAMES)})$")]
"""Name of a module on which vLLM serves an adapter, or its path in the model, as PEFT's `all-linear` writes it."""


@dataclass(frozen=True)
class Adapter:
    """An adapter to evaluate. folder: holds its files, links resolved. base: the model it states."""

    folder: Path
    base: str


@with_config(ConfigDict(extra="allow"))
class AdapterConfig(TypedDict):
    """adapter_config.json."""

    r: Annotated[int, Field(ge=1, le=VLLM_RANKS[-1])]
    lora_alpha: Annotated[float, Field(ge=1, le=MOST, multiple_of=1)]
    use_rslora: NotRequired[bool | None]
    target_modules: list[Module]
    base_model_name_or_path: NotRequired[str | None]
    revision: NotRequired[str | None]


def pinned(config: AnyConfig, adapter: str = "") -> AnyConfig:
    """Return the settings with `model.pin`: as given, else for a hub model the commit that the adapter to evaluate or
    to start from states, else the present commit or digest. adapter: folder of the one to evaluate.

    Raises BadInput if that model cannot be had, or if the adapter states another commit than is given.
    """
    model, (name, given), (folder, where) = config.model, name_on_hub(config.model), _adapter_folder(config, adapter)
    states_model = name and (adapter or config.lora.start_from) and os.path.isfile(folder / CONFIG_FILE)
    stated = _read(config, model.path, folder, where) if states_model else {}
    if stated.get("base_model_name_or_path") == name and (revision := stated.get("revision")):
        if given and re.fullmatch(PIN, revision) and pin_of(model) != revision:
            raise BadInput(f"{where}: was made for {name}@{revision}, not for {given}; make them equal")
        model = model if given else replace(model, path=f"{name}@{revision}")
    return changed(config, {"model.pin": pin_of(model)})


def check_adapter(config: Config, model_path: str = "") -> None:
    """Raise BadInput unless `lora.start_from` is empty or a plain PEFT adapter in safetensors that states and fits the
    model, of no larger rank than the run's and on no other modules.

    model_path: the model's local folder. Without it, config.json is fetched; the shapes of the weights are checked
        later if `model.shape` is declared, so that this needs no network.
    """
    if not config.lora.start_from:
        return
    folder, where = _adapter_folder(config, "")
    theirs, ours = _lora(_read(config, model_path, folder, where)), config.lora
    if (rank := theirs["rank"]) > ours.rank:
        raise BadInput(f"{where}: has rank {rank}, this run has lora.rank={ours.rank}; give lora.rank={rank}")
    if more := [module for module in theirs["target_modules"] if module not in ours.target_modules]:
        remedy = f"give lora.target_modules=[{','.join((*ours.target_modules, *more))}]"
        raise BadInput(f"{where}: is also on {', '.join(more)}, which this run does not train; {remedy}")
    if model_path or config.model.shape == ShapeConfig():
        path = model_path or str(config_folder(config.model))
        _check_weights(_with(config, theirs), path, folder / WEIGHTS_FILE, where, effective=False)


def adopt_adapter(config: AnyConfig, adapter: str, model: str, part: bool = False) -> tuple[AnyConfig, Adapter | None]:
    """Return the settings with rank, alpha, scaling and modules of the adapter in a folder, and that adapter; None if
    `adapter` is empty. It may also name a checkpoint.

    model: its local folder. part: accept also an adapter made for a wrapper's part for text alone, which vLLM does not
    apply to the wrapper.

    Raises BadInput unless it is a plain PEFT adapter in safetensors that states, fits and changes the model.
    """
    if not adapter:
        return config, None
    folder, where = _adapter_folder(config, adapter)
    stated = _read(config, model, folder, where)
    config = _with(config, _lora(stated))
    _check_weights(config, model, folder / WEIGHTS_FILE, where, effective=True, part=part)
    return config, Adapter(folder.resolve(), stated["base_model_name_or_path"])


def _adapter_folder(config: Config, adapter: str) -> tuple[Path, str]:
    """Return the folder of the adapter to evaluate, or else of the one to start from, and the setting that names it."""
    if not adapter:
        return Path(config.lora.start_from), f"lora.start_from={config.lora.start_from}"
    folder = Path(adapter)
    inside = os.path.isfile(folder / "adapter" / CONFIG_FILE)
    return folder / "adapter" if inside else folder, f"adapter={adapter}"


def scale_of(stated: dict[str, Any]) -> float:
    """Return the s of PEFT's s · B A by adapter_config.json: alpha / r, or alpha / √r with rsLoRA."""
    rank, alpha = stated["r"], stated["lora_alpha"]
    return float(alpha / (math.sqrt(rank) if stated.get("use_rslora") else rank))


def model_names(path: str) -> set[str]:
    """Return a model's names by its path: the last part without a revision, and what follows the owner in a cache."""
    parts = Path(path).parts or (path,)
    return {parts[-1].partition("@")[0], *(part.rpartition("--")[2] for part in parts if part.startswith("models--"))}


def _read(config: Config, model_path: str, folder: Path, where: str) -> dict[str, Any]:
    """Return adapter_config.json. Raises BadInput unless it is of a plain LoRA for the run's model."""
    remedy = "name a plain LoRA in PEFT's format"
    text = read_text(folder / CONFIG_FILE, f"{remedy} as {where.partition('=')[0]}")
    stated: dict[str, Any] = parse_json(text, AdapterConfig, f"{where}: {CONFIG_FILE}", remedy)
    for key in sorted({*stated, *PLAIN} - ANY_VALUE):
        if (value := stated.get(key)) not in PLAIN.get(key, OFF):
            raise BadInput(f"{where}: its {key} is {value}, which cannot be served and trained further; {remedy}")
    base = stated.get("base_model_name_or_path")
    if not base:
        raise BadInput(f"{where}: names no base model; write base_model_name_or_path into {CONFIG_FILE}")
    path = config.model.path
    known = map(model_names, (path, HUB_NAMES.get(path, path), model_path))
    if model_names(base).isdisjoint(chain(*known)):  # paths differ by machine
        remedy = f"if it is the same model, write {path} as base_model_name_or_path into its {CONFIG_FILE}"
        raise BadInput(f"{where}: was made for {base}, this run has model.path={path}; {remedy}")
    return stated


def _lora(stated: dict[str, Any]) -> dict[str, Any]:
    """Return an adapter's values of the fields of `config.lora`."""
    return {
        "rank": stated["r"],
        "alpha": int(stated["lora_alpha"]),
        "rslora": bool(stated.get("use_rslora")),
        "target_modules": sorted({name.rpartition(".")[2] for name in stated["target_modules"]}),
    }


def _with(config: AnyConfig, lora: dict[str, Any]) -> AnyConfig:
    return changed(config, {f"lora.{key}": value for key, value in lora.items()})


def _check_weights(config: Config, model: str, file: Path, where: str, effective: bool, part: bool = False) -> None:
    """Raise BadInput unless the weights are finite A and B of each module that a run would train.

    effective: some B A must differ from zero. part: see `adopt_adapter`.
    """
    if not os.path.isfile(file):
        raise BadInput(f"{where}: holds no {WEIGHTS_FILE} (pickles can run code when loaded); save it as safetensors")
    expected, changes_model = adapter_shapes(model, config.lora.target_modules, config.lora.rank), False
    try:
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118  # no mapping
            shapes = {name: weight.get_shape() for name, weight in slices.items()}
            if part and not any(STORED in name for name in shapes):
                expected = {name.replace(STORED, OWN): shape for name, shape in expected.items()}
            for name in sorted(expected.keys() | shapes.keys()):
                if shapes.get(name) != expected.get(name):
                    differs = f"has shape {shapes.get(name)}, expected {expected.get(name)}"
                    raise BadInput(f"{where}: {name} {differs}; name a whole adapter of the same model")
                if (kind := slices[name].get_dtype()) not in FLOATS:
                    raise BadInput(f"{where}: {name} is in {kind}; name an adapter in {' or '.join(FLOATS)}")
            for name in (name for name in expected if ".lora_B." in name):
                a, b = weights.get_tensor(name.replace(".lora_B.", ".lora_A.")), weights.get_tensor(name)
                if not (a.isfinite().all() and b.isfinite().all()):
                    raise BadInput(f"{where}: {name} or its A holds numbers that are not finite; name another adapter")
                changes_model = changes_model or bool(a.any() and b.any())
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{where}: {file.name} cannot be read ({error}); name an undamaged adapter") from None
    if effective and not changes_model:
        raise BadInput(f"{where}: every B or A is zero, so it does not change the model; name a trained adapter")

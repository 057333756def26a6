"""Adapters made elsewhere, which a run starts from or an evaluation is about: whether vLLM can serve them, and whether
they are of this model.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from conf.errors import BadInput
from conf.models import shape_from_config
from conf.schema import Config, ShapeConfig
from conf.schema.model import PROJECTIONS, VLLM_RANKS
from conf.sizes import projection_sizes

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of PEFT's init_lora_weights that leave the base model's weights alone."""


@dataclass(frozen=True)
class Adapter:
    """One to evaluate. folder: with its files, links resolved. base: the model it says it was made for."""

    folder: Path
    base: str


@dataclass(frozen=True)
class Feature:
    """key: of adapter_config.json. plain: whether a value is that of a plain LoRA. reason: why others are refused."""

    key: str
    plain: Callable[[Any], bool]
    reason: str


def _off(value: Any) -> bool:
    return value in (None, False, [], {})


FEATURES = (
    Feature("peft_type", lambda value: value == "LORA", "it is no LoRA"),
    Feature("use_dora", _off, "vLLM cannot serve DoRA"),
    Feature("modules_to_save", _off, "vLLM cannot serve whole modules beside the adapter"),
    Feature("rank_pattern", _off, "vLLM pads all layers to one rank, and this project trains one"),
    Feature("alpha_pattern", _off, "the learner trains one alpha for all layers"),
    Feature("bias", lambda value: value in (None, "none"), "vLLM cannot serve trained biases"),
    Feature("lora_bias", _off, "vLLM cannot serve a bias in the adapter"),
    Feature("init_lora_weights", lambda value: value in (None, *PLAIN_INITS), "such an init changes the base weights"),
    Feature("fan_in_fan_out", _off, "vLLM cannot serve transposed weights"),
    Feature("layer_replication", _off, "vLLM cannot serve replicated layers"),
    Feature("alora_invocation_tokens", _off, "vLLM cannot serve activated LoRA"),
    Feature("use_bdlora", _off, "vLLM cannot serve block-diagonal LoRA"),
    Feature("use_qalora", _off, "vLLM cannot serve QALoRA"),
    Feature("trainable_token_indices", _off, "vLLM cannot serve trained embeddings"),
    Feature("target_parameters", _off, "the learner trains linear modules only"),
    Feature("layers_to_transform", _off, "the learner trains the modules of every layer"),
    Feature("exclude_modules", _off, "the learner trains the modules of every layer"),
)


def check_adapter(config: Config, model_path: str) -> None:
    """Raise BadInput unless `lora.start_from` is empty or a plain PEFT adapter in safetensors, of this run's rank,
    alpha, scaling and modules, that fits its model and says that it was made for one of this name. model_path: the
    model's local folder.
    """
    if not config.lora.start_from:
        return
    folder = Path(config.lora.start_from)
    where = f"lora.start_from={folder}"
    stated = _read(folder, where)
    _check_settings(config, stated, where)
    _check_base(config, model_path, stated, where)
    _check_weights(config, shape_from_config(model_path), folder / WEIGHTS_FILE, where)


def adopt_adapter(config: Config, model_path: str) -> Adapter | None:
    """What `adapter` names, whose rank, alpha, scaling and modules become those of `config.lora`; None if it is empty.
    A checkpoint stands for the adapter in it.

    Raises BadInput unless it is a plain PEFT adapter in safetensors that changes the model, fits it and says that it
    was made for one of this name.
    """
    if not config.adapter:
        return None
    where = f"adapter={config.adapter}"
    folder = Path(config.adapter)
    if (folder / "adapter" / CONFIG_FILE).is_file():
        folder = folder / "adapter"
    stated = _read(folder, where)
    _check_base(config, model_path, stated, where)
    lora = config.lora
    try:
        lora.rank, lora.alpha = int(stated["r"]), int(stated["lora_alpha"])
        lora.rslora, lora.target_modules = bool(stated.get("use_rslora")), sorted(stated["target_modules"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where}: {CONFIG_FILE} does not state r, lora_alpha and target_modules ({error})") from None
    if not 1 <= lora.rank <= VLLM_RANKS[-1]:
        raise BadInput(f"{where}: its rank is {lora.rank}, and vLLM serves 1 to {VLLM_RANKS[-1]}")
    if unknown := [name for name in lora.target_modules if name not in PROJECTIONS]:
        raise BadInput(f"{where}: it adapts {unknown[0]}; only {', '.join(PROJECTIONS)} can be served")
    _check_weights(config, shape_from_config(model_path), folder / WEIGHTS_FILE, where)
    _check_effect(folder / WEIGHTS_FILE, where)
    return Adapter(folder.resolve(), stated["base_model_name_or_path"])


def _read(folder: Path, where: str) -> dict[str, Any]:
    """The settings of a plain LoRA."""
    try:
        stated: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
        if not isinstance(stated, dict):
            raise ValueError("it holds no settings")
    except (OSError, ValueError) as error:
        raise BadInput(f"{where}: {CONFIG_FILE} cannot be read ({error}); name a folder in PEFT's format") from None
    for feature in FEATURES:
        value = stated.get(feature.key)
        if not feature.plain(value):
            raise BadInput(f"{where}: its {feature.key} is {value}, but {feature.reason}; name a plain LoRA")
    return stated


def _check_base(config: Config, model_path: str, stated: dict[str, Any], where: str) -> None:
    """By name alone, since the same model has other paths elsewhere."""
    base = stated.get("base_model_name_or_path")
    if not base:
        raise BadInput(
            f"{where}: does not say which model it was made for; write that model's name into {CONFIG_FILE}, as "
            "base_model_name_or_path"
        )
    if not model_names(base) & (model_names(config.model.path) | model_names(model_path)):
        raise BadInput(f"{where}: was made for {base}, this run has model.path={config.model.path}; make them equal")


def _check_effect(file: Path, where: str) -> None:
    """That some B A is not zero, and all of them are numbers."""
    effective = False
    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118  # no mapping
            if ".lora_B." in name:
                a, b = weights.get_tensor(name.replace(".lora_B.", ".lora_A.")), weights.get_tensor(name)
                if not (a.isfinite().all() and b.isfinite().all()):
                    raise BadInput(f"{where}: {name} or its A holds numbers that are not finite; name a sound adapter")
                effective = effective or bool(a.any() and b.any())
    if not effective:
        raise BadInput(
            f"{where}: every B or A is zero, it does not change the model; name an adapter that was trained, or leave "
            "it out to evaluate the base model"
        )


def _check_settings(config: Config, stated: dict[str, Any], where: str) -> None:
    """The adapter's own settings against the run's."""
    lora = config.lora
    modules = stated.get("target_modules")
    theirs = {
        "rank": stated.get("r"),
        "alpha": stated.get("lora_alpha"),
        "rslora": stated.get("use_rslora", False),
        "target_modules": sorted(modules) if isinstance(modules, list) else modules,
    }
    ours = {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "rslora": lora.rslora,
        "target_modules": sorted(lora.target_modules),
    }
    for key, value in ours.items():
        if theirs[key] != value:
            raise BadInput(
                f"{where}: was made with {key} {theirs[key]}, this run has lora.{key}={value}; make them equal"
            )


def model_names(path: str) -> set[str]:
    """What a model is called by its path: the last part, and in the hub's cache, the part after the owner."""
    parts = Path(path).parts
    return {parts[-1], *(part.rpartition("--")[2] for part in parts if part.startswith("models--"))}


def _check_weights(config: Config, shape: ShapeConfig, file: Path, where: str) -> None:
    """That the weights are A and B of each module in every layer."""
    if not file.is_file():
        raise BadInput(f"{where}: holds no {WEIGHTS_FILE} (pickles can run code when loaded); save it as safetensors")
    try:
        with safe_open(file, framework="numpy") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{where}: {file.name} cannot be read ({error}); name an undamaged adapter") from None
    expected = _shapes(config, shape)
    for name in sorted(expected.keys() | shapes.keys()):
        if shapes.get(name) != expected.get(name):
            raise BadInput(
                f"{where}: {name} has shape {shapes.get(name)}, this run's {expected.get(name)}; name"
                " an adapter of the same model and modules"
            )


def _shapes(config: Config, shape: ShapeConfig) -> dict[str, list[int]]:
    """Of the run's own adapter, under PEFT's names."""
    sizes, rank = projection_sizes(shape), config.lora.rank
    shapes = {}
    for layer in range(shape.layers):
        for module in config.lora.target_modules:
            inputs, outputs = sizes[module]
            block = "self_attn" if module in ATTENTION else "mlp"
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            shapes[f"{name}.lora_A.weight"] = [rank, inputs]
            shapes[f"{name}.lora_B.weight"] = [outputs, rank]
    return shapes

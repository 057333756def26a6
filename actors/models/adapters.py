"""Adapters made elsewhere, to start a run from or to evaluate: can vLLM serve them, and are they of this model?"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

from actors.models.files import shape_from_config
from actors.models.sizes import projection_sizes
from conf.departed import value_today
from conf.documents import parse_json, read_text
from conf.errors import BadInput
from conf.schema import Config, ShapeConfig
from conf.schema.model import FUSED, PROJECTIONS, VLLM_RANKS
from conf.settings import MOST, changed

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")

ANY_VALUE = {
    *("r", "lora_alpha", "use_rslora", "target_modules", "base_model_name_or_path"),  # read here
    *("task_type", "revision", "auto_mapping", "inference_mode", "peft_version", "megatron_core", "layers_pattern"),
    *("lora_dropout", "loftq_config", "eva_config", "qalora_group_size"),  # of its training, or of what is off
}
"""Keys of adapter_config.json that a plain LoRA may give any value."""

PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}
"""Values of a plain LoRA by key. (The other inits of PEFT change the base model's weights.)"""

OFF: tuple[Any, ...] = (None, False, [], {})
"""Values of a plain LoRA under all other keys: whatever else PEFT can do, vLLM or the learner cannot."""


@dataclass(frozen=True)
class Adapter:
    """An adapter to evaluate. folder: with its files, links resolved. base: the model it says it was made for."""

    folder: Path
    base: str


@with_config(ConfigDict(extra="allow"))
class Stated(TypedDict):
    """adapter_config.json."""

    r: NotRequired[Annotated[int, Field(ge=1, le=MOST)]]
    lora_alpha: NotRequired[Annotated[int, Field(ge=1, le=MOST)]]
    use_rslora: NotRequired[bool | None]
    target_modules: NotRequired[list[str] | str | None]
    base_model_name_or_path: NotRequired[str | None]


def check_adapter(config: Config, model_path: str) -> None:
    """Raise BadInput unless `lora.start_from` is empty or a plain PEFT adapter in safetensors, of this run's rank,
    alpha, scaling and modules, that fits its model and says that it was made for one of this name.

    model_path: the model's local folder.
    """
    if not config.lora.start_from:
        return
    folder, where = Path(config.lora.start_from), f"lora.start_from={config.lora.start_from}"
    for key, theirs in _lora(_read(config, model_path, folder, where)).items():
        ours = getattr(config.lora, key)
        if theirs != (sorted(ours) if isinstance(ours, list) else ours):
            raise BadInput(f"{where}: was made with {key} {theirs}, this run has lora.{key}={ours}; make them equal")
    _check_weights(config, model_path, folder / WEIGHTS_FILE, where, effective=False)


def adopt_adapter(config: Config, model_path: str) -> tuple[Config, Adapter | None]:
    """Return the settings with rank, alpha, scaling and modules of the adapter that `adapter` names, and that adapter;
    None if `adapter` is empty. A checkpoint stands for the adapter in it.

    Raises BadInput unless it is a plain PEFT adapter in safetensors that changes the model, fits it and says that it
    was made for one of this name.
    """
    if not config.adapter:
        return config, None
    folder, where = Path(config.adapter), f"adapter={config.adapter}"
    if os.path.isfile(folder / "adapter" / CONFIG_FILE):
        folder = folder / "adapter"
    stated = _read(config, model_path, folder, where)
    served = (*PROJECTIONS, *FUSED)
    for key, value in _lora(stated).items():
        if value is None or (key == "target_modules" and not isinstance(value, list)):
            raise BadInput(f"{where}: {CONFIG_FILE} states no {key} that is of use ({value}); name a plain LoRA")
        config = changed(config, {f"lora.{key}": value})
    if config.lora.rank > VLLM_RANKS[-1]:
        raise BadInput(f"{where}: its rank is {config.lora.rank}, and vLLM serves 1 to {VLLM_RANKS[-1]}")
    if unknown := [name for name in config.lora.target_modules if name not in served]:
        raise BadInput(f"{where}: it adapts {unknown[0]}; only {', '.join(served)} can be served")
    _check_weights(config, model_path, folder / WEIGHTS_FILE, where, effective=True)
    return config, Adapter(folder.resolve(), stated["base_model_name_or_path"])


def model_names(path: str) -> set[str]:
    """Return what a model is called by its path: the last part, and in the hub's cache, the part after the owner."""
    parts = Path(path).parts or (path,)
    return {parts[-1], *(part.rpartition("--")[2] for part in parts if part.startswith("models--"))}


def _read(config: Config, model_path: str, folder: Path, where: str) -> dict[str, Any]:
    """Read the adapter's own settings, those of a plain LoRA for the run's model."""
    remedy = "name a folder in PEFT's format"
    text = read_text(folder / CONFIG_FILE, remedy)
    stated: dict[str, Any] = parse_json(text, Stated, f"{where}: {CONFIG_FILE}", remedy)
    for key in sorted({*stated, *PLAIN} - ANY_VALUE):
        if (value := stated.get(key)) not in PLAIN.get(key, OFF):
            raise BadInput(f"{where}: its {key} is {value}, which cannot be served and trained on; name a plain LoRA")
    base = value_today("model.path", stated.get("base_model_name_or_path"))
    if not base:
        raise BadInput(
            f"{where}: does not say which model it was made for; write that model's name into {CONFIG_FILE}, as "
            "base_model_name_or_path"
        )
    if not model_names(base) & (model_names(config.model.path) | model_names(model_path)):  # paths differ by machine
        raise BadInput(f"{where}: was made for {base}, this run has model.path={config.model.path}; make them equal")
    return stated


def _lora(stated: dict[str, Any]) -> dict[str, Any]:
    """Return what an adapter states of the fields of `config.lora`, None for what it does not."""
    modules = stated.get("target_modules")
    return {
        "rank": stated.get("r"),
        "alpha": stated.get("lora_alpha"),
        "rslora": bool(stated.get("use_rslora")),
        "target_modules": sorted(set(modules)) if isinstance(modules, list) else modules,
    }


def _check_weights(config: Config, model_path: str, file: Path, where: str, effective: bool) -> None:
    """Raise BadInput unless the weights are finite A and B of each module in every layer.

    effective: whether some B A must not be zero.
    """
    if not os.path.isfile(file):
        raise BadInput(f"{where}: holds no {WEIGHTS_FILE} (pickles can run code when loaded); save it as safetensors")
    try:
        with safe_open(file, framework="numpy") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{where}: {file.name} cannot be read ({error}); name an undamaged adapter") from None
    expected = _shapes(config, shape_from_config(model_path))
    for name in sorted(expected.keys() | shapes.keys()):
        if shapes.get(name) != expected.get(name):
            raise BadInput(
                f"{where}: {name} has shape {shapes.get(name)}, this run's {expected.get(name)}; name"
                " an adapter of the same model and modules"
            )
    with safe_open(file, framework="pt") as weights:
        found = False
        for name in (name for name in expected if ".lora_B." in name):
            a, b = weights.get_tensor(name.replace(".lora_B.", ".lora_A.")), weights.get_tensor(name)
            if not (a.isfinite().all() and b.isfinite().all()):
                raise BadInput(f"{where}: {name} or its A holds numbers that are not finite; name a sound adapter")
            found = found or bool(a.any() and b.any())
    if effective and not found:
        raise BadInput(
            f"{where}: every B or A is zero, it does not change the model; name an adapter that was trained, or leave "
            "it out to evaluate the base model"
        )


def _shapes(config: Config, shape: ShapeConfig) -> dict[str, list[int]]:
    """Shapes of the run's own adapter, under PEFT's names."""
    sizes, rank = projection_sizes(shape), config.lora.rank
    shapes = {}
    for layer in range(shape.num_hidden_layers):
        for module in config.lora.target_modules:
            inputs, outputs = sizes[module]
            block = "self_attn" if module in ATTENTION else "mlp"
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            shapes[f"{name}.lora_A.weight"] = [rank, inputs]
            shapes[f"{name}.lora_B.weight"] = [outputs, rank]
    return shapes

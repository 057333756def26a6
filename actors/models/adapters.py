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
from conf.documents import parse_json, read_text
from conf.errors import BadInput
from conf.schema import Config, ShapeConfig
from conf.schema.model import FUSED, PROJECTIONS, VLLM_RANKS
from conf.settings import MOST

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")

REASONS = {
    "peft_type": "it is no LoRA",
    "use_dora": "vLLM cannot serve DoRA",
    "modules_to_save": "vLLM cannot serve whole modules beside the adapter",
    "rank_pattern": "vLLM pads all layers to one rank, and this project trains one",
    "alpha_pattern": "the learner trains one alpha for all layers",
    "bias": "vLLM cannot serve trained biases",
    "lora_bias": "vLLM cannot serve a bias in the adapter",
    "init_lora_weights": "such an init changes the base weights",
    "fan_in_fan_out": "vLLM cannot serve transposed weights",
    "layer_replication": "vLLM cannot serve replicated layers",
    "alora_invocation_tokens": "vLLM cannot serve activated LoRA",
    "use_bdlora": "vLLM cannot serve block-diagonal LoRA",
    "use_qalora": "vLLM cannot serve QALoRA",
    "trainable_token_indices": "vLLM cannot serve trained embeddings",
    "target_parameters": "the learner trains linear modules only",
    "layers_to_transform": "the learner trains the modules of every layer",
    "exclude_modules": "the learner trains the modules of every layer",
}
"""By key of adapter_config.json: why a value that is not PLAIN is refused."""

PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}
"""Values of a plain LoRA by key. (The other inits of PEFT change the base model's weights.)"""

OFF: tuple[Any, ...] = (None, False, [], {})
"""Values of a plain LoRA under all other keys."""


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
    folder = Path(config.lora.start_from)
    where = f"lora.start_from={folder}"
    stated = _read(config, model_path, folder, where)
    modules = stated.get("target_modules")
    theirs = {
        "rank": stated.get("r"),
        "alpha": stated.get("lora_alpha"),
        "rslora": stated.get("use_rslora", False),
        "target_modules": sorted(modules) if isinstance(modules, list) else modules,
    }
    for key, value in theirs.items():
        ours = getattr(config.lora, key)
        ours = sorted(ours) if isinstance(ours, list) else ours
        if value != ours:
            raise BadInput(f"{where}: was made with {key} {value}, this run has lora.{key}={ours}; make them equal")
    _check_weights(config, shape_from_config(model_path), folder / WEIGHTS_FILE, where)
    _check_effect(folder / WEIGHTS_FILE, where, asked=False)


def adopt_adapter(config: Config, model_path: str) -> Adapter | None:
    """Return the adapter that `adapter` names, whose rank, alpha, scaling and modules become those of `config.lora`;
    None if it is empty. A checkpoint stands for the adapter in it.

    Raises BadInput unless it is a plain PEFT adapter in safetensors that changes the model, fits it and says that it
    was made for one of this name.
    """
    if not config.adapter:
        return None
    where = f"adapter={config.adapter}"
    folder = Path(config.adapter)
    if os.path.isfile(folder / "adapter" / CONFIG_FILE):
        folder = folder / "adapter"
    stated = _read(config, model_path, folder, where)
    lora = config.lora
    if not isinstance(modules := stated.get("target_modules"), list):
        raise BadInput(f"{where}: target_modules={modules} in {CONFIG_FILE}: is no list of names; name a plain LoRA")
    if missing := [key for key in ("r", "lora_alpha") if key not in stated]:
        raise BadInput(f"{where}: {CONFIG_FILE} does not state {missing[0]}; name a plain LoRA")
    lora.rank, lora.alpha = stated["r"], stated["lora_alpha"]
    lora.rslora, lora.target_modules = bool(stated.get("use_rslora")), sorted(set(modules))
    if not 1 <= lora.rank <= VLLM_RANKS[-1]:
        raise BadInput(f"{where}: its rank is {lora.rank}, and vLLM serves 1 to {VLLM_RANKS[-1]}")
    if unknown := [name for name in lora.target_modules if name not in (*PROJECTIONS, *FUSED)]:
        raise BadInput(f"{where}: it adapts {unknown[0]}; only {', '.join((*PROJECTIONS, *FUSED))} can be served")
    _check_weights(config, shape_from_config(model_path), folder / WEIGHTS_FILE, where)
    _check_effect(folder / WEIGHTS_FILE, where)
    return Adapter(folder.resolve(), stated["base_model_name_or_path"])


def model_names(path: str) -> set[str]:
    """Return what a model is called by its path: the last part, and in the hub's cache, the part after the owner."""
    parts = Path(path).parts or (path,)
    return {parts[-1], *(part.rpartition("--")[2] for part in parts if part.startswith("models--"))}


def _read(config: Config, model_path: str, folder: Path, where: str) -> dict[str, Any]:
    """Read the adapter's own settings, those of a plain LoRA for the run's model."""
    remedy = "name a folder in PEFT's format"
    stated: dict[str, Any] = parse_json(
        read_text(folder / CONFIG_FILE, remedy), Stated, f"{where}: {CONFIG_FILE}", remedy
    )
    for key, reason in REASONS.items():
        if (value := stated.get(key)) not in PLAIN.get(key, OFF):
            raise BadInput(f"{where}: its {key} is {value}, but {reason}; name a plain LoRA")
    base = stated.get("base_model_name_or_path")
    if not base:
        raise BadInput(
            f"{where}: does not say which model it was made for; write that model's name into {CONFIG_FILE}, as "
            "base_model_name_or_path"
        )
    if not model_names(base) & (model_names(config.model.path) | model_names(model_path)):  # paths differ by machine
        raise BadInput(f"{where}: was made for {base}, this run has model.path={config.model.path}; make them equal")
    return stated


def _check_effect(file: Path, where: str, asked: bool = True) -> None:
    """Raise BadInput unless all B and A are finite, and some B A is not zero. asked: whether it must not be zero."""
    effective = not asked
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


def _check_weights(config: Config, shape: ShapeConfig, file: Path, where: str) -> None:
    """Raise BadInput unless the weights are A and B of each module in every layer."""
    if not os.path.isfile(file):
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
    """Shapes of the run's own adapter, under PEFT's names."""
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

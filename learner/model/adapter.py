"""The LoRA adapter: on its model, on disk in plain PEFT format, synthetic ones for the adapter check, and its size."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from microbudget_rl.actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE, scale_of
from microbudget_rl.actors.models.families import FUSED
from microbudget_rl.actors.models.files import BUNDLED, name_on_hub
from microbudget_rl.actors.models.text_part import OUTSIDE, OWN, PEFT, STORED, whole_model, wrapped
from microbudget_rl.actors.storage.files import sync
from microbudget_rl.actors.storage.folders import new_folder
from microbudget_rl.conf.schema import Config
from microbudget_rl.learner.model.model_check import delta_rule_serves, fuse
from microbudget_rl.learner.model.projection import Projection
from microbudget_rl.learner.model.shared_weights import model_on

NOISE = 0.5
"""Norm of a synthetic adapter's change relative to the weight. In a middle layer of a bfloat16 model of thirty, mean
|Δ log p| is 0.3 to 1.0 for each type of module, against 0.04 between bfloat16 and float32; noise in all layers makes a
model chaotic, so that bfloat16 alone moves it as far as a mistake."""

JITTER = 1e-12
"""Addition to a Gram matrix's diagonal, relative to its mean, so that a Cholesky factor exists at any rank."""


def load_model(
    config: Config,
    model_path: str,
    device: str | torch.device = "cpu",
    begins: bool = True,
    weights: Mapping[str, Tensor] | None = None,
) -> PeftModel:
    """Load the frozen base model, under a fresh adapter that may embed that of `lora.start_from`, onto a device.

    Weights go from the mapped file straight to a GPU: host memory never holds the model.
    begins: whether all processes begin with this process's adapter; the others need not see the folder.
    weights: the base model on that device in vLLM's layout; None to load it.
    """
    disable_progress_bar()
    dtype, device = getattr(torch, config.model.dtype), torch.device(device)
    if weights is None:
        straight = {} if device.type == "cpu" else {"device_map": {"": device}}
        base = whole_model(model_path, dtype=dtype, attn_implementation="eager", **straight)
    else:
        base = model_on(weights, model_path, dtype)
    family = base.config.model_type
    plain = not config.learner.fused_kernels or family not in FUSED
    if device.type == "cuda" and not (delta_rule_serves(family) and (plain or fuse(base, device))):
        # Plain kernels keep more for the backward pass than the plan has room for.
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        use_rslora=config.lora.rslora,
        init_lora_weights="gaussian" if config.lora.init == "gaussian" else True,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.target_modules),
    )
    lora._register_custom_module({nn.Linear: Projection})  # experimental in PEFT 0.21.2, hence the underscore
    torch.manual_seed(config.run.seed)
    model = get_peft_model(base, lora, autocast_adapter_dtype=False)
    stated = cast(LoraConfig, model.peft_config["default"])
    # PEFT makes a set of them, which every process would write in another order.
    stated.target_modules = list(config.lora.target_modules)
    stated.exclude_modules = OUTSIDE if wrapped(model_path) else None  # for those who attach it to the whole wrapper
    name, stated.revision = name_on_hub(config.model)
    if name or config.model.path == BUNDLED:  # other machines have another path
        stated.base_model_name_or_path = name or BUNDLED
    if config.lora.start_from and begins:
        _embed(model, Path(config.lora.start_from))
    return cast(PeftModel, model.to(device))


def write_adapter(model: PeftModel, folder: Path, durable: bool) -> None:
    """Write adapter_model.safetensors and adapter_config.json into `folder`, loadable by peft and vLLM as they are.

    The folder is written under another name and renamed, so that no reader sees half of it; one that is there is
    set aside.
    durable: wait until the disk has it, for a restart; other processes can read it from memory earlier.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {_on_disk(model, name): tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with new_folder(folder) as made:
        save_file(weights, made / WEIGHTS_FILE, metadata={"format": "pt"})
        model.peft_config["default"].save_pretrained(str(made))
        for path in (*made.iterdir(), made) if durable else ():
            sync(path)
    if durable:
        sync(folder.parent)


def _on_disk(model: PeftModel, name: str) -> str:
    """Return the name that a weight or module of the adapter has in files."""
    inside = cast(LoraConfig, model.peft_config["default"]).exclude_modules is not None
    return name.replace(PEFT + OWN, PEFT + STORED, 1) if inside else name


def adapter_weights(model: PeftModel) -> dict[str, Tensor]:
    """Return a copy of the adapter's weights in host memory, by their parameters' names."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def replaced(model: PeftModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace these weights of the adapter, named as in `adapter_weights`. On exit it is bit for bit as before."""
    saved = adapter_weights(model)
    try:
        model.load_state_dict(weights, strict=False)
        yield
    finally:
        model.load_state_dict(saved, strict=False)


@contextmanager
def noise(model: PeftModel, number: int, count: int) -> Iterator[None]:
    """Replace the adapter by synthetic adapter `number` (from 1) of `count`: noise in one layer of each kind and in the
    modules outside the layers, zero elsewhere. On exit it is bit for bit as before.
    """
    with replaced(model, {}):
        _draw(model, number, {alike[len(alike) * number // (count + 1)] for alike in modules_by_kind(model).values()})
        yield


def modules_by_kind(model: nn.Module) -> dict[str, list[str]]:
    """Return the modules with an adapter by their place in each kind of layer, in the layers' order. A place is called
    by its module, such as q_proj; if layers of another kind have that too, a layer is named.

    Layers are of one kind if their modules have the same names and shapes.
    """
    layers, kinds = defaultdict[str, dict[Any, str]](dict), defaultdict[Any, list[str]](list)
    for name, _, a, b in _layers(model):
        layer, within = _place(name)
        layers[layer][within, a.shape, b.shape] = name
    for modules in layers.values():
        for key, name in modules.items():
            kinds[frozenset(modules), key].append(name)
    places, by_place = Counter(within.rpartition(".")[2] for _, (within, *_) in kinds), {}
    for (_, (within, *_)), names in kinds.items():
        module = within.rpartition(".")[2]
        by_place[module if places[module] == 1 else f"{within} as in {_place(names[0])[0] or 'no layer'}"] = names
    return by_place


@contextmanager
def scaled(model: PeftModel, factor: float, modules: Collection[str] | None = None) -> Iterator[None]:
    """Multiply the adapter's contribution by a factor, in these modules or in all. On exit it is as before."""
    scalings = [layer.scaling for name, layer, _, _ in _layers(model) if modules is None or name in modules]
    saved = [scaling["default"] for scaling in scalings]
    for scaling in scalings:
        scaling["default"] *= factor
    try:
        yield
    finally:
        for scaling, value in zip(scalings, saved, strict=True):
            scaling["default"] = value


@torch.no_grad()
def adapter_norms(model: PeftModel) -> dict[str, float]:
    """Return ‖scaling · B A‖_F over all layers by type of module: tr(AᵀBᵀB A) needs only r × r matrices."""
    squares: defaultdict[str, float] = defaultdict(float)
    for name, layer, a, b in _layers(model):
        a, b = a.float(), b.float()
        square = layer.scaling["default"] ** 2 * ((b.T @ b) * (a @ a.T)).sum()
        squares[name.rpartition(".")[2]] += square.item()
    return {kind: max(square, 0.0) ** 0.5 for kind, square in squares.items()}


@torch.no_grad()
def effective_ranks(model: PeftModel) -> dict[str, float]:
    """Return the effective rank of BA in every layer, by `<layer>.<module>`; of a module outside them by its name."""
    ranks = {}
    for name, _, a, b in _layers(model):
        place = (part.rpartition(".")[2] for part in _place(name))
        ranks[".".join(filter(None, place))] = effective_rank(a, b)
    return ranks


def effective_rank(a: Tensor, b: Tensor) -> float:
    """Return exp of the entropy of b @ a's normalised singular values (Roy & Vetterli, "The effective rank", 2007).

    It is 1 for rank one, r for r equal values, 0 if all are zero. a: [r, inputs], b: [outputs, r].

    With AAᵀ = L Lᵀ the squares of the singular values are the eigenvalues of Lᵀ BᵀB L, which is r × r: twenty times as
    fast as by QR. The Gram matrices are in float64, because the square root halves the digits.
    """
    a, b = a.double(), b.double()
    gram = a @ a.T
    gram.diagonal().add_(JITTER * gram.trace() / len(gram))
    factor = torch.linalg.cholesky(gram)
    squares = torch.linalg.eigvalsh(factor.T @ (b.T @ b) @ factor)
    values = squares.clamp_min(0.0).sqrt()
    total = values.sum()
    return torch.special.entr(values / total).sum().exp().item() if total > 0 else 0.0


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer, Tensor, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            a, b = (cast(nn.Linear, pair["default"]).weight for pair in (module.lora_A, module.lora_B))
            yield name, module, a, b


def _place(module: str) -> tuple[str, str]:
    """Return a module's layer, such as model.layers.3, empty if it is in none, and its name within the layer."""
    layer, within = cast(re.Match[str], re.fullmatch(r"(?:base_model\.model\.)?(?:(.*?\.\d+)\.)?(.*)", module)).groups()
    return layer or "", within


@torch.no_grad()
def _embed(model: PeftModel, folder: Path) -> None:
    """Embed an adapter that `actors.models.adapters.check_adapter` has accepted in a fresh one of no lower rank.

    A becomes [A₀; fresh rows] and B becomes [B₀ s₀ / s, 0], so that s B A = s₀ B₀ A₀. Other modules stay fresh.
    """
    given, scale = load_file(folder / WEIGHTS_FILE), scale_of(json.loads((folder / CONFIG_FILE).read_text()))
    for name, layer, a, b in _layers(model):
        stored = _on_disk(model, name)
        if (first := given.get(f"{stored}.lora_A.weight")) is not None:
            a[: len(first)] = first
            b[:, : len(first)] = given[f"{stored}.lora_B.weight"].double() * (scale / layer.scaling["default"])


@torch.no_grad()
def _draw(model: PeftModel, seed: int, modules: Collection[str]) -> None:
    """Draw uniform A of variance 1 / inputs and B of a variance v in these modules: E ‖B A‖²_F is v · outputs · r."""
    generator = torch.Generator(model.device).manual_seed(seed)
    for name, layer, a, b in _layers(model):
        b.zero_()
        if name in modules:
            size = cast(nn.Linear, layer.get_base_layer()).weight.float().norm().item()
            deviation = NOISE * size / layer.scaling["default"] * b.numel() ** -0.5
            for weight, spread in ((a, a.shape[1] ** -0.5), (b, deviation)):
                weight.uniform_(-(3**0.5) * spread, 3**0.5 * spread, generator=generator)

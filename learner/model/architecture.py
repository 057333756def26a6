"""Checks a model's modules before its weights are loaded: can the adapter be attached whole?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from microbudget_rl.actors.models.families import check_family
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.model import FUSED, PROJECTIONS

FOREIGN = (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, ImportError, OSError)
"""Errors that library code raises for a model that it does not know or takes for another kind."""


def check_architecture(config: Config, model_path: str) -> None:
    """Raise BadInput if a model cannot be trained, by its config.json or by its modules, built without weights."""
    check_family(model_path)
    try:
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
    except FOREIGN as error:
        raise BadInput(
            f"model.path={config.model.path}: transformers {version('transformers')} cannot build it ({error}); choose"
            " a model that it knows as a causal language model"
        ) from error
    check_modules(base, config.lora.target_modules)


def check_modules(base: Any, targets: Sequence[str]) -> None:
    """Raise BadInput for a layer with other linear modules than the targets, or with modules that mix samples."""
    for number, layer in enumerate(layers_of(base)):
        for objection in _objections(layer, targets):
            raise BadInput(f"model {base.config.name_or_path}: layer {number} has {objection}")


def layers_of(base: Any) -> nn.ModuleList:
    """Return a causal language model's layers. Raises BadInput if it has no list of them."""
    count = getattr(base.config, "num_hidden_layers", None)
    for module in base.get_decoder().children():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise BadInput(
        f"model {base.config.name_or_path}: {type(base).__name__} has no list of {count} layers; choose a model of the"
        " Llama, Qwen or Mistral kind"
    )


def _objections(layer: nn.Module, targets: Sequence[str]) -> Iterator[str]:
    """Yield modules that cannot be learned or served, and targets that are missing, each with a remedy."""
    for name, module in layer.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            yield f"a convolution, {name}, which mixes packed samples; choose another model"
        if isinstance(module, nn.Dropout) and module.p > 0 and "attn_drop" not in name:
            yield (
                f"a dropout of {module.p:g}, {name}, with which learner and engine would differ; set it to 0 in a copy"
                " of the model"
            )
    for name, parameter in layer.named_parameters():
        if parameter.dim() == 3:
            yield f"experts, {name}, which carry no adapter; choose a dense model"
    linear = Counter(name.rpartition(".")[2] for name, each in layer.named_modules() if isinstance(each, nn.Linear))
    for name in targets:
        if linear[name] != 1:
            yield f"{linear[name] or 'no'} {name}, and the adapter would be attached in part; {_remedy(linear)}"
    if "gate_up_proj" in targets and linear["qkv_proj"] != 1:
        yield (
            "gate_up_proj but no qkv_proj, and vLLM then serves no adapter on gate_up_proj; take it out of"
            " lora.target_modules, if an adapter without it is what you want"
        )
    if set(targets) == set(PROJECTIONS) and (left := linear.keys() - targets):
        yield (
            f"{_names(left)} besides lora.target_modules, without an adapter; choose another model, or name fewer"
            " modules if a part is what you want"
        )


def _remedy(linear: Counter[str]) -> str:
    """Return the remedy for targets that are missing in a layer with these linear modules."""
    fused = FUSED if linear["qkv_proj"] == 1 else ()
    own = [name for name in (*PROJECTIONS, *fused) if linear[name] == 1]
    if not own:
        return "choose another model"
    left = linear.keys() - own
    alone = f", if an adapter on these without {_names(left)} is what you want" if left else ""
    return f"set lora.target_modules=[{','.join(own)}]{alone}"


def _names(names: Any) -> str:
    return ", ".join(sorted(names))

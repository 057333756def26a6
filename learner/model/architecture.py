"""Checks a model's modules before its weights are loaded: can the adapter be attached whole?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from actors.models.families import check_family
from conf.errors import BadInput
from conf.schema import Config
from conf.schema.model import FUSED, PROJECTIONS

FOREIGN = (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, ImportError, OSError)
"""Errors that library code raises for a model that it does not know or takes for another kind."""


def check_architecture(config: Config, model_path: str) -> None:
    """Raise BadInput if a model cannot be trained, by its config.json or by its modules, which are built without
    weights.
    """
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
    """Raise BadInput unless every layer consists of attention and MLP, has each target once, has no linear module
    without adapter if all are targeted, and neither layers nor head compute anything that the learner omits.
    """
    model = f"model {base.config.name_or_path}"
    for number, layer in enumerate(layers_of(base)):
        for objection in _objections(layer, targets):
            raise BadInput(f"{model}: layer {number} has {objection}")
    head = base.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise BadInput(
            f"{model}: its output head is {head}, and the log-probabilities are computed from a plain matrix; choose a"
            " model whose head has no bias"
        )


def layers_of(base: Any) -> nn.ModuleList:
    """Return a causal language model's layers; raises BadInput if they are nowhere to be found."""
    count = getattr(base.config, "num_hidden_layers", None)
    lists = [module for module in base.get_decoder().children() if isinstance(module, nn.ModuleList)]
    for layers in lists:
        if len(layers) == count:
            return layers
    raise BadInput(
        f"model {base.config.name_or_path}: {type(base).__name__} has no list of {count} layers; choose a model of the"
        " Llama, Qwen or Mistral kind"
    )


def _objections(layer: nn.Module, targets: Sequence[str]) -> Iterator[str]:
    """Yield, with their remedies, a layer's modules besides attention, MLP and norms, and targets that are missing."""
    strangers = [
        *(f"a convolution, {name}, which mixes packed samples" for name in _of_kind(layer, nn.Conv1d | nn.Conv2d)),
        *(
            f"a dropout of {module.p:g}, {name}, with which what is learned would not be what is served"
            for name, module in _of_kind(layer, nn.Dropout).items()
            if module.p > 0 and "attn_drop" not in name
        ),
        *(f"experts, {name}, which carry no adapter" for name, each in layer.named_parameters() if each.dim() == 3),
    ]
    if not any("Attention" in type(module).__name__ for module in layer.modules()):
        strangers.append("no attention")
    yield from (f"{stranger}; choose a dense model of attention and MLPs" for stranger in strangers)
    linear = Counter(name.rpartition(".")[2] for name in _of_kind(layer, nn.Linear))
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
            f"{_names(left)} besides lora.target_modules, and they would be left without adapter; choose another model,"
            " or name fewer modules if a part is what you want"
        )


def _of_kind(layer: nn.Module, kind: Any) -> dict[str, Any]:
    return {name: module for name, module in layer.named_modules() if isinstance(module, kind)}


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

"""Checks a model's modules before its weights are loaded: can the adapter be attached whole?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from microbudget_rl.actors.models.families import RECURRENT, UNEVEN, check_family
from microbudget_rl.actors.models.files import linear_modules
from microbudget_rl.actors.models.text_part import empty_model
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.model import ALL_LINEAR, PROJECTIONS


def check_architecture(config: Config, model_path: str) -> None:
    """Raise BadInput if a model cannot be trained, by its config.json or by its modules, built without weights."""
    check_family(model_path)
    base = empty_model(model_path)
    if config.model.shares_weights and base.config.model_type in UNEVEN:
        raise BadInput(f"model.shared_weights=on: not for {base.config.model_type}; set model.shared_weights=off")
    check_modules(base, config.lora.target_modules)


def check_modules(base: Any, targets: Sequence[str]) -> None:
    """Raise BadInput for a layer with other linear modules than the targets, or with modules that mix samples."""
    family, name, trainable = base.config.model_type, base.config.name_or_path, linear_modules(base.config.to_dict())
    for number, layer in enumerate(layers_of(base)):
        for objection in _objections(layer, targets, family, trainable):
            raise BadInput(f"model {name}: layer {number} has {objection}")
    linear = _linear(base.get_decoder())
    for target in targets:
        if not linear[target]:
            raise BadInput(f"model {name}: no layer has {target}; {_remedy(linear, trainable)}")
    if "in_proj_z" in targets and "in_proj_qkv" not in targets:
        raise BadInput("lora.target_modules: vLLM serves in_proj_z only together with in_proj_qkv; add that one")


def layers_of(base: Any) -> nn.ModuleList:
    """Return a causal language model's layers. Raises BadInput if it has no list of them."""
    count = getattr(base.config, "num_hidden_layers", None)
    for module in base.get_decoder().children():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    name, remedy = base.config.name_or_path, "choose a model of the Llama, Qwen or Mistral kind"
    raise BadInput(f"model {name}: {type(base).__name__} has no list of {count} layers; {remedy}")


def _objections(layer: nn.Module, targets: Sequence[str], family: str, trainable: Sequence[str]) -> Iterator[str]:
    """Yield modules that cannot be learned or served, and targets that are missing, each with a remedy.

    trainable: all linear modules of the model that can carry an adapter.
    """
    convolutions = nn.Conv2d if family in RECURRENT else (nn.Conv1d, nn.Conv2d)
    for name, module in layer.named_modules():
        if isinstance(module, convolutions):
            yield f"a convolution, {name}, which mixes packed samples; choose another model"
        if isinstance(module, nn.Dropout) and module.p > 0 and "attn_drop" not in name:
            yield f"a dropout of {module.p:g}, {name}, with which learner and engine would differ; set it to 0"
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and not isinstance(module, nn.Conv1d):
                yield f"experts, {name}.{key}, which carry no adapter; choose a dense model"
    linear = _linear(layer)
    for name in targets:
        if linear[name] > 1 or not (linear[name] or family in UNEVEN):
            fault = f"{linear[name] or 'no'} {name}, and the adapter would be attached in part"
            yield f"{fault}; {_remedy(linear, trainable)}"
    if "gate_up_proj" in targets and linear["qkv_proj"] != 1:
        yield "gate_up_proj but no qkv_proj, and vLLM serves no such adapter; take it out of lora.target_modules"
    unserved = {"out_proj"} if family == "falcon_h1" else set()
    if refused := unserved & {*targets}:
        yield f"{', '.join(refused)}, on which PEFT attaches no adapter; {_remedy(linear, trainable)}"
    if {*targets} in ({*trainable}, {*PROJECTIONS}) and (left := linear.keys() - targets - unserved):
        remedy = "choose another model" if {*trainable} == {*targets} else _remedy(linear, trainable)
        yield f"{', '.join(sorted(left))} besides lora.target_modules, without an adapter; {remedy}, or name fewer"


def _linear(module: nn.Module) -> Counter[str]:
    return Counter(
        name.rpartition(".")[2] for name, submodule in module.named_modules() if isinstance(submodule, nn.Linear)
    )


def _remedy(linear: Counter[str], trainable: Sequence[str]) -> str:
    """Return the remedy for targets that are missing among these linear modules."""
    if {*trainable} != {*PROJECTIONS}:
        return f"set lora.target_modules=[{ALL_LINEAR}]"
    usual = [name for name in PROJECTIONS if linear[name] == 1]
    if not usual:
        return "choose another model"
    left = linear.keys() - usual
    alone = f", if an adapter on these without {', '.join(sorted(left))} is what you want" if left else ""
    return f"set lora.target_modules=[{','.join(usual)}]{alone}"

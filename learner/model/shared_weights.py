"""The base model on memory that another process holds in vLLM's layout: its parameters are rows of the mapped tensors.

vLLM 0.32 stacks queries, keys and values, and gate and up, into one tensor each, and pads the vocabulary. On a GPU it
stores unquantised weights as [outputs, inputs], as transformers does, so that every parameter is a slice of rows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from microbudget_rl.actors.models.files import weight_files
from microbudget_rl.actors.models.sizes import PARTS
from microbudget_rl.conf.errors import BadInput

INTO = {part: whole for whole, parts in PARTS.items() for part in parts}


def model_on(weights: Mapping[str, Tensor], model_path: str, dtype: torch.dtype) -> Any:
    """Return transformers' model of a folder, its frozen parameters on these weights and its buffers beside them.

    Raises BadInput unless each parameter equals the folder's safetensors files: the adapter check does not see a
    mistake that engine and learner share.
    """
    with init_empty_weights(include_buffers=False):
        base = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(model_path), dtype=dtype, attn_implementation="eager"
        )
    base.tie_weights()
    parameters = dict(base.named_parameters())
    views = {name: _rows(name, parameters, weights) for name in parameters}
    for name in _different(views, parameters, model_path):
        raise BadInput(f"model {model_path}: vLLM does not hold {name} as the file does; set model.shared_weights=off")
    base.load_state_dict(views, strict=False, assign=True)
    base.tie_weights()
    return base.requires_grad_(False).to(next(iter(views.values())).device).eval()


def _rows(name: str, parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Return the rows of the mapped weights that hold a parameter; fewer if there are not enough."""
    *path, module, kind = name.split(".")
    begin, stacked = 0, name
    if name not in weights and module in INTO:
        stacked = ".".join((*path, INTO[module], kind))
        parts = PARTS[INTO[module]]
        preceding = parts[: parts.index(module)]
        begin = sum(len(parameters[".".join((*path, part, kind))]) for part in preceding)
    whole = weights.get(stacked, torch.empty(0))
    return whole[begin : begin + len(parameters[name])]


def _different(views: Mapping[str, Tensor], parameters: Mapping[str, Tensor], model_path: str) -> list[str]:
    """Return the views of another type or shape, or whose first, middle or last row differs from the files'."""
    left = dict(views)
    for shard in weight_files(Path(model_path)):
        with safe_open(shard, framework="pt") as file:
            for name in left.keys() & set(file.keys()):
                view, parameter, stored = left[name], parameters[name], file.get_slice(name)
                rows = {0, len(parameter) // 2, len(parameter) - 1}
                if (view.dtype, view.shape) == (parameter.dtype, parameter.shape) and all(
                    torch.equal(view[row].cpu(), stored[row : row + 1][0].to(view.dtype)) for row in rows
                ):
                    del left[name]
    return sorted(left)

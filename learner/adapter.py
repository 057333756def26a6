"""The adapter on disk, in plain PEFT format, and how large it has become."""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn

from actors.durable import sync


def write_adapter(model: PeftModel, folder: Path) -> None:
    """Make `folder` hold adapter_model.safetensors and adapter_config.json, loadable by peft and vLLM as they are.

    Written and synced beside it, then renamed: the folder appears complete or not at all, so that no reader ever sees
    half of it. A folder of that name is replaced.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(weights, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
    model.peft_config["default"].save_pretrained(str(temporary))
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync(folder.parent)


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Set the adapter's weights to those in a folder that `conf.adapters.check_adapter` has accepted."""
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


@torch.no_grad()
def adapter_norms(model: PeftModel) -> dict[str, float]:
    """‖scaling · B A‖_F over all layers, for each type of module, such as q_proj.

    ‖B A‖²_F = tr(AᵀBᵀB A) = Σ (BᵀB) ∘ (A Aᵀ): two r × r Gram matrices a layer, never the product itself.
    """
    squares: defaultdict[str, float] = defaultdict(float)
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            a, b = (cast(nn.Linear, pair["default"]).weight.float() for pair in (module.lora_A, module.lora_B))
            square = module.scaling["default"] ** 2 * ((b.T @ b) * (a @ a.T)).sum()
            squares[name.rpartition(".")[2]] += square.item()
    return {kind: max(square, 0.0) ** 0.5 for kind, square in squares.items()}

"""The base model merged with the adapter, in Hugging Face format.

Sums are computed in float32 and rounded once, to the type of the base model's file, unless float32 is requested.
Rounding to bfloat16 is stochastic: most changes by a short run are smaller than half a step of that type, and the
nearest number would be the base model's own.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE, scale_of
from actors.models.files import MODEL_FILES, stop_token_ids, weight_files
from launch.after.trained import Trained

LOST = 2**16
"""Number of values of the 16 bits that bfloat16 lacks compared with float32."""


def write_merged(trained: Trained, folder: Path, whole: bool) -> None:
    """Write the merged model and the base model's other files into an empty folder. whole: in float32, not rounded."""
    base, chance = Path(trained.model_path), torch.Generator().manual_seed(0)
    scale = scale_of(json.loads((trained.adapter / CONFIG_FILE).read_text()))
    changes = load_file(trained.adapter / WEIGHTS_FILE)
    for file in weight_files(base):
        weights = load_file(file)
        for name, weight in weights.items():
            dtype, module = weight.dtype, f"base_model.model.{name.removesuffix('.weight')}"
            if name.endswith(".weight") and f"{module}.lora_A.weight" in changes:
                a, b = (changes[f"{module}.lora_{side}.weight"].float() for side in "AB")
                weight = weight.float() + scale * (b @ a)
            weights[name] = rounded(weight, torch.float32 if whole else dtype, chance)
        save_file(weights, folder / file.name, metadata={"format": "pt"})
    for file in {file for pattern in MODEL_FILES for file in base.glob(pattern)}:
        if file.suffix != ".safetensors":
            shutil.copyfile(file, folder / file.name)
    for file in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", file)  # safetensors makes files that nobody else can read
    if whole:
        stated = json.loads((folder / "config.json").read_text())
        stated.pop("torch_dtype", None)  # the name of `dtype` in older versions of transformers
        (folder / "config.json").write_text(json.dumps({**stated, "dtype": "float32"}, indent=2) + "\n")
    add_stop_tokens(trained, folder)


def rounded(weight: Tensor, dtype: torch.dtype, chance: torch.Generator) -> Tensor:
    """Return a weight in another type. From float32 to bfloat16, each number becomes one of its two neighbours at
    random, so that the mean is kept.
    """
    weight = weight.contiguous()
    if (weight.dtype, dtype) != (torch.float32, torch.bfloat16):
        return weight.to(dtype)
    bits = weight.view(torch.int32) + torch.randint(LOST, weight.shape, generator=chance, dtype=torch.int32)
    return (bits & -LOST).view(torch.float32).to(dtype)


def add_stop_tokens(trained: Trained, folder: Path) -> None:
    """Add the run's stop tokens to the generation settings in a folder."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    if not trained.config.model.stop_tokens:
        return
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder)
    else:
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    own = settings.eos_token_id
    more = stop_token_ids(trained.config.model, AutoTokenizer.from_pretrained(folder))
    settings.eos_token_id = [*dict.fromkeys([*(own if isinstance(own, list) else [own] if own else []), *more])]
    settings.save_pretrained(folder)

"""The base model with the adapter added to its weights, in Hugging Face format.

Sums are taken in float32 and rounded once, to the type that the base model's file has, unless that is not wanted.
To bfloat16 they are rounded up or down by chance (stochastic rounding): most of what a short run adds is less than half
a step of that type, and the nearest number would be the base model's own.
"""

import json
import math
import shutil
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from actors.models.files import MODEL_FILES, stop_token_ids, weight_files
from conf.errors import BadInput
from launch.after.trained import Trained

SUMMED = (torch.float32, torch.bfloat16, torch.float16)
"""Types of weights that something can be added to; others are packed."""


LOST = 2**16
"""Values of the bits that float32 has and bfloat16 has not."""


class Sum:
    """A base model's weights, with what an adapter adds to them."""

    def __init__(self, adapter: Path) -> None:
        stated = json.loads((adapter / CONFIG_FILE).read_text())
        rank, alpha = stated["r"], stated["lora_alpha"]
        self._scale = alpha / (math.sqrt(rank) if stated.get("use_rslora") else rank)
        self._weights = load_file(adapter / WEIGHTS_FILE)
        self._left = {name.removesuffix(".lora_A.weight") for name in self._weights if name.endswith(".lora_A.weight")}

    def of_model(self, folder: Path) -> Iterator[tuple[Path, str, Tensor, torch.dtype]]:
        """Yield file, name, weight and the type it had: a float32 sum where the adapter adds something.

        Raises BadInput for a weight that nothing can be added to, and if one is missing.
        """
        for file in weight_files(folder):
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118  # no mapping
                    weight = weights.get_tensor(name)
                    yield file, name, self._add(name, weight), weight.dtype
        if self._left:
            missing = min(self._left).removeprefix("base_model.model.")
            raise BadInput(f"the base model in {folder} has no weight {missing}, which the adapter changes")

    def _add(self, name: str, weight: Tensor) -> Tensor:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if module not in self._left or not name.endswith(".weight"):
            return weight
        if weight.dtype not in SUMMED:
            raise BadInput(f"the base model's {name} is in {weight.dtype}, to which no adapter can be added")
        self._left.remove(module)
        a, b = (self._weights[f"{module}.lora_{side}.weight"].float() for side in "AB")
        return weight.float() + self._scale * (b @ a)


def write_merged(trained: Trained, folder: Path, whole: bool) -> None:
    """Write the merged model into an empty folder, with all else that belongs to the base model.

    whole: in float32, without rounding.
    """
    base, chance = Path(trained.model_path), torch.Generator().manual_seed(0)
    for file, weights in groupby(Sum(trained.adapter).of_model(base), key=itemgetter(0)):
        parts = {name: rounded(weight, torch.float32 if whole else dtype, chance) for _, name, weight, dtype in weights}
        save_file(parts, folder / file.name, metadata={"format": "pt"})
    for file in {file for pattern in MODEL_FILES for file in base.glob(pattern)}:
        if file.suffix != ".safetensors":
            shutil.copyfile(file, folder / file.name)
    if whole:
        stated = json.loads((folder / "config.json").read_text())
        stated.pop("torch_dtype", None)  # what older versions of transformers call it
        (folder / "config.json").write_text(json.dumps({**stated, "dtype": "float32"}, indent=2) + "\n")
    add_stop_tokens(trained, folder)


def rounded(weight: Tensor, dtype: torch.dtype, chance: torch.Generator) -> Tensor:
    """Return a weight in another type. In bfloat16 a float32 one becomes either neighbour, so that its mean is kept."""
    weight = weight.contiguous()
    if (weight.dtype, dtype) != (torch.float32, torch.bfloat16):
        return weight.to(dtype)
    bits = weight.view(torch.int32) + torch.randint(LOST, weight.shape, generator=chance, dtype=torch.int32)
    return (bits & -LOST).view(torch.float32).to(dtype)


def add_stop_tokens(trained: Trained, folder: Path) -> None:
    """Have the generation settings in a folder end a response at the run's own stop tokens too."""
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

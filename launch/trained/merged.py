"""Merges the trained adapter into its base model, in Hugging Face format, and verifies that both agree.

Sums are computed in float32 and rounded once, to the type of the base model's file, unless float32 is requested.
Rounding to bfloat16 is stochastic: most changes by a short run are smaller than half a step of that type, and the
nearest number would be the base model's own.

The check compares log-probabilities of held-out responses under base model, adapter and merged model, all computed in
float32 from the files. The difference between merged model and adapter may be about as large as the change of the
adapter from rounding alone, to bfloat16, in which engines compute.
"""

import gc
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from microbudget_rl.actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE, scale_of
from microbudget_rl.actors.models.files import MODEL_FILES, stop_token_ids, weight_files
from microbudget_rl.actors.models.text_part import wrapped
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.trained.policy import Trained

LOST = 2**16
"""Number of values of the 16 bits that bfloat16 lacks compared with float32."""

RESPONSES, RESPONSE_TOKENS = 32, 128
"""Number of responses scored, and most tokens scored per response: about a minute for a 1.5B model on two cores."""

FLOOR = 1e-4
"""Mean |Δ log p| that always counts as agreement: ten times the noise of float32."""

WIDTH = 1.5
"""Largest difference between merged model and adapter, over the noise, which is measured on few tokens."""

APART = 2.0
"""Least distance of the merged model from the base model, over its distance from the adapter. Below it, rounding has
destroyed the training."""

REMEDY = "export.py type=float32 keeps it, and so does the adapter alone"


def write_verified(trained: Trained, whole: bool, folder: Path, console: Console) -> str:
    """Write a merged model into an empty folder, verify it, and print the differences. whole: in float32, not rounded.
    Return the reason why the model is refused, or an empty text. Raises BadInput if it cannot be written.
    """
    try:
        write_merged(trained, folder, whole)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"the model cannot be written ({error}); make room") from None
    console.print("Verifying it by held-out responses …")
    differences = distances(trained, folder)
    table = Table("mean |Δ log p| per token, between", "nats")
    for pair, distance in differences.items():
        table.add_row(pair, f"{distance:.5f}")
    console.print(table)
    return fault(*differences.values())


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
    """Return a weight in another type. From float32 to bfloat16 it is rounded at random, so that the mean is kept."""
    weight = weight.contiguous()
    if (weight.dtype, dtype) != (torch.float32, torch.bfloat16):
        return weight.to(dtype)
    bits = weight.view(torch.int32) + torch.randint(LOST, weight.shape, generator=chance, dtype=torch.int32)
    return (bits & -LOST).view(torch.float32).to(dtype)


def add_stop_tokens(trained: Trained, folder: Path) -> None:
    """Add the run's stop tokens to the generation settings in a folder."""
    if not trained.config.model.stop_tokens:
        return
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder)
    else:
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    stops = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    more = stop_token_ids(trained.config.model, AutoTokenizer.from_pretrained(folder))
    settings.eos_token_id = [token for token in dict.fromkeys([*stops, *more]) if token is not None]
    settings.save_pretrained(folder)


def distances(trained: Trained, merged: Path) -> dict[str, float]:
    """Return mean |Δ log p| between base model, adapter and merged model, in nats per token."""
    disable_progress_bar()
    texts = read_texts(trained)
    model = PeftModel.from_pretrained(load_model(trained.model_path), str(trained.adapter))
    adapter = logprobs(model, texts)
    with model.disable_adapter():
        base = logprobs(model, texts)
    rounded = logprobs(model.to(torch.bfloat16), texts)
    del model
    gc.collect()
    export = logprobs(load_model(str(merged)), texts)
    pairs = {
        "adapter and base": (adapter, base),
        "adapter in bfloat16 and in float32": (rounded, adapter),
        "export and adapter": (export, adapter),
        "export and base": (export, base),
    }
    return {name: (left - right).abs().mean().item() for name, (left, right) in pairs.items()}


def fault(learned: float, noise: float, off: float, away: float) -> str:
    """Return why an export is refused, or an empty text. The values are those of `distances`, in their order."""
    if not off <= max(WIDTH * noise, FLOOR):
        return (
            f"the export differs from the adapter by {off:.2g} nats per token, more than {WIDTH:g} times the"
            f" {noise:.2g} of rounding; {REMEDY}"
        )
    if not away > APART * off:
        return f"the adapter changes {learned:.2g} nats per token, lost in the export's rounding of {off:.2g}; {REMEDY}"
    return ""


def load_model(path: str) -> Any:
    """Return the whole model in a folder in float32, on a GPU if there is one."""
    kind = AutoModelForImageTextToText if wrapped(path) else AutoModelForCausalLM
    model: Any = kind.from_pretrained(path, dtype=torch.float32)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def read_texts(trained: Trained) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of the run's prompts and responses, held-out ones if it has any. Raises BadInput without."""
    tokenizer = AutoTokenizer.from_pretrained(trained.model_path)
    names = ("eval-final", "eval-base", *reversed(trained.run.sampled("update")))
    rows = next(filter(None, map(trained.run.samples, names)), None)
    if rows is None:
        raise BadInput(f"{trained.run.path / 'samples'} has no samples to verify an export with: restore some")

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    return [
        (ids(row.prompt), [*ids(row.response), tokenizer.eos_token_id][:RESPONSE_TOKENS]) for row in rows[:RESPONSES]
    ]


@torch.inference_mode()
def logprobs(model: Any, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """Return the log-probability of every token of the responses."""
    parts = []
    for prompt, response in texts:
        ids = torch.tensor([[*prompt, *response]], device=model.device)
        logits = model(input_ids=ids, logits_to_keep=len(response) + 1, use_cache=False).logits[0, :-1]
        parts.append(logits.float().log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0].cpu())
    return torch.cat(parts)

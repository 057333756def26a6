"""Writes an export into a folder, and verifies that it agrees with the trained adapter.

The check compares log-probabilities of held-out responses under base model, adapter and export, all computed in float32
from the files. The difference between export and adapter may be about as large as the change from rounding alone: of
the adapter to bfloat16, in which engines compute, or, for q8_0, of the base model to q8_0.
"""

import gc
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils.logging import disable_progress_bar

from actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from actors.models.files import shape_from_config, weight_files
from actors.models.sizes import parameters
from conf.errors import BadInput
from launch.after.gguf_file import write_gguf
from launch.after.merged import write_merged
from launch.after.trained import Trained

RESPONSES, RESPONSE_TOKENS = 32, 128
"""Number of responses scored, and most tokens scored per response: about a minute for a 1.5B model on two cores."""

BATCH_TOKENS, BATCH_LOGITS = 2**14, 2**27
"""Most tokens of a batch, padding included, and most logits of a batch: half a GiB in float32."""

FLOOR = 1e-4
"""Mean |Δ log p| that always counts as agreement: ten times the noise of float32."""

WIDTH = 1.5
"""Largest difference between export and adapter, over the noise, which is measured on few tokens."""

APART = 2.0
"""Least distance of the export from the base model, over its distance from the adapter. Below it, rounding has
destroyed the training."""

BYTES = {"float32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
"""Bytes of a weight by dtype. Other exports keep the base model's."""

REMEDY = "export.py keeps it with format=merged type=float32, or with format=adapter"
ROOM = "make room, or name a folder on another disk, for push.py by TMPDIR"


def write_verified(trained: Trained, form: str, kind: str, name: str, folder: Path, console: Console) -> str:
    """Write an export into an empty folder, verify it, and print the differences.

    Return the reason why the export is refused, or an empty text. Raises BadInput if it cannot be written.
    """
    needed, free = needed_bytes(trained, form, kind), shutil.disk_usage(folder).free
    if free < needed:
        raise BadInput(f"the export takes {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free; {ROOM}")
    loaded: Callable[[], Any] = partial(load_model, str(folder))
    try:
        if form == "merged":
            write_merged(trained, folder, whole=kind == "float32")
        elif form == "gguf":
            write_gguf(trained, kind, folder / f"{name}-{kind}.gguf")
            unpacked = GgufConfig(dequantize=True)
            loaded = partial(load_model, str(folder), gguf_file=f"{name}-{kind}.gguf", quantization_config=unpacked)
        else:
            write_adapter(trained, folder)
            loaded = partial(load_adapter, trained, folder)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"the export cannot be written ({error}); {ROOM}") from None
    console.print("Verifying it by held-out responses …")
    differences = distances(trained, loaded, kind == "q8_0")
    table = Table("mean |Δ log p| per token, between", "nats")
    for pair, distance in differences.items():
        table.add_row(pair, f"{distance:.5f}")
    console.print(table)
    return fault(*differences.values())


def write_adapter(trained: Trained, folder: Path, base: str = "") -> None:
    """Copy the adapter into an empty folder.

    base: the base model's name to write into it; empty to keep the one that the run has written.
    """
    shutil.copyfile(trained.adapter / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    stated = json.loads((trained.adapter / CONFIG_FILE).read_text())
    if base:
        stated["base_model_name_or_path"] = base
    (folder / CONFIG_FILE).write_text(json.dumps(stated, indent=2) + "\n")


def needed_bytes(trained: Trained, form: str, kind: str) -> int:
    """Return the bytes of an export's weights."""
    if form != "adapter" and kind:
        return int(BYTES[kind] * parameters(shape_from_config(trained.model_path)))
    files = [trained.adapter / WEIGHTS_FILE] if form == "adapter" else weight_files(Path(trained.model_path))
    return sum(file.stat().st_size for file in files)


def load_model(path: str, **settings: Any) -> Any:
    """Return the model in a folder in float32, on a GPU if there is one."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **settings)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load_adapter(trained: Trained, folder: Path) -> Any:
    """Return the base model in float32 with the adapter in a folder."""
    return PeftModel.from_pretrained(load_model(trained.model_path), str(folder))


def distances(trained: Trained, load_export: Callable[[], Any], q8_0: bool) -> dict[str, float]:
    """Return mean |Δ log p| between base, adapter and export, in nats per token.

    q8_0: whether the export's weights are rounded to that type.
    """
    disable_progress_bar()
    texts, model = read_texts(trained), load_adapter(trained, trained.adapter)
    adapter = logprobs(model, texts)
    with model.disable_adapter():
        base = logprobs(model, texts)
        if q8_0:
            rounding = {"base in q8_0 and in float32": (logprobs(round_weights(model), texts), base)}
    if not q8_0:
        rounding = {"adapter in bfloat16 and in float32": (logprobs(model.to(torch.bfloat16), texts), adapter)}
    del model
    gc.collect()
    export = logprobs(load_export(), texts)
    pairs = {
        "adapter and base": (adapter, base),
        **rounding,
        "export and adapter": (export, adapter),
        "export and base": (export, base),
    }
    return {name: (left - right).abs().mean().item() for name, (left, right) in pairs.items()}


def fault(learned: float, noise: float, off: float, away: float) -> str:
    """Return the reason why an export is refused; empty if it agrees with the adapter.

    learned, noise, off, away: mean |Δ log p| of adapter and base, of rounding alone, of export and adapter, of export
    and base.
    """
    if not off <= max(WIDTH * noise, FLOOR):
        return (
            f"the export differs from the adapter by {off:.2g} nats per token, more than {WIDTH:g} times the"
            f" {noise:.2g} of rounding; {REMEDY}"
        )
    if not away > APART * off:
        return f"the adapter changes {learned:.2g} nats per token, lost in the export's rounding of {off:.2g}; {REMEDY}"
    return ""


def read_texts(trained: Trained) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of prompts and responses in the run's folder, of held-out samples if there are any.

    Raises BadInput without samples.
    """
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
def logprobs(model: Any, texts: list[tuple[list[int], list[int]]]) -> Tensor:
    """Return the log-probability of every token of the responses, computed in padded batches."""
    longest = max(len(prompt) + len(response) for prompt, response in texts)
    first = min(len(prompt) for prompt, _ in texts) - 1
    size = max(1, min(BATCH_TOKENS // longest, BATCH_LOGITS // ((longest - first) * model.config.vocab_size)))
    parts = []
    for batch in (texts[start : start + size] for start in range(0, len(texts), size)):
        ids = [torch.tensor([*prompt, *response]) for prompt, response in batch]
        padded = pad_sequence(ids, batch_first=True).to(model.device)  # after each text, where no token attends
        logits = model(input_ids=padded, logits_to_keep=padded.shape[1] - first, use_cache=False).logits
        for row, (prompt, response) in zip(logits, batch, strict=True):
            scored = row[len(prompt) - 1 - first :][: len(response)].float().log_softmax(-1)
            parts.append(scored.gather(1, torch.tensor(response, device=scored.device)[:, None])[:, 0].cpu())
    return torch.cat(parts)


@torch.no_grad()
def round_weights(model: Any) -> Any:
    """Round a model's matrices to q8_0, except the adapter's and those that keep f16, and return the model."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and weight.shape[-1] % 32 == 0 and ".lora_" not in name:
            packed = quantize(weight.cpu().numpy(), GGMLQuantizationType.Q8_0)
            weight.copy_(torch.from_numpy(dequantize(packed, GGMLQuantizationType.Q8_0)))
    return model

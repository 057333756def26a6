"""Whether an export is what was trained, by log-probabilities of held-out answers under base, adapter and export.

All are computed in float32 from what is on disk. An export's rounding is measured by that of others: by what the
adapter's log-probabilities differ by when they are computed in bfloat16, as engines do; in the case of q8_0, by what
the base model's do when its weights are rounded so.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from peft import PeftModel
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from conf.errors import BadInput
from launch.after.trained import Trained

PROBES = 32
"""Answers whose tokens are scored; of the quickstart they are 250 tokens, which a processor scores in seconds."""

PROBE_TOKENS = 128
"""Of each answer, at most: 32 answers then take a 1.5B model about a minute on two cores."""

BATCH_TOKENS, BATCH_LOGITS = 2**14, 2**27
"""Tokens, padding included, and logits of one forward pass at most: half a GiB of logits in float32."""

FLOOR = 1e-4
"""Mean |Δ log p| that always counts as agreement: float32 itself differs by a tenth of it."""

WIDTH = 1.5
"""An export may differ from the adapter by so many times the noise, which itself is measured on few tokens."""

APART = 2.0
"""An export has to be so many times farther from the base model than from the adapter: one that is not has lost, in
rounding, what was learned."""

REMEDY = "export.py keeps it with format=merged type=float32, or with format=adapter"

Probe = tuple[list[int], list[int]]
"""Token ids of a prompt and of its answer."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Difference:
    """|Δ log p| of the probes' tokens between two policies, in nats."""

    between: str
    mean: float
    p99: float
    largest: float


@dataclass(frozen=True)
class Verification:
    """What came of it. fault: why the export is not good, empty if it is."""

    tokens: int
    differences: tuple[Difference, ...]
    fault: str

    @property
    def table(self) -> Table:
        shown = Table(title=f"|Δ log p| of {self.tokens} held-out tokens, nats", title_justify="left")
        shown.add_column("between")
        for name in ("mean", "99 % below", "largest"):
            shown.add_column(name, justify="right")
        for each in self.differences:
            shown.add_row(each.between, *(f"{value:.5f}" for value in (each.mean, each.p99, each.largest)))
        return shown


def verify(trained: Trained, load_export: Callable[[], Any], q8_0: bool, say: Say) -> Verification:
    """Compare an export with base and adapter.

    load_export: returns the model, in float32, as it is on disk. q8_0: whether its weights are rounded to that.
    say: told what is computed.
    """
    disable_progress_bar()
    probes = read_probes(trained)
    say(f"Scoring {len(probes)} held-out answers: with the adapter")
    model = PeftModel.from_pretrained(load(trained.model_path), str(trained.adapter))
    adapter = logprobs(model, probes)
    with model.disable_adapter():
        say("… with the base model")
        base = logprobs(model, probes)
        if q8_0:
            say("… with the base model in q8_0")
            noise = ("base in q8_0 and unrounded", logprobs(round_weights(model), probes), base)
    if not q8_0:
        say("… with the adapter in bfloat16")
        noise = ("adapter in bfloat16 and in float32", logprobs(model.to(torch.bfloat16), probes), adapter)
    del model
    gc.collect()
    say("… with the export")
    export = logprobs(load_export(), probes)
    found = (
        difference("adapter and base", adapter, base),
        difference(*noise),
        difference("export and adapter", export, adapter),
        difference("export and base", export, base),
    )
    return Verification(len(base), found, fault(*(each.mean for each in found)))


def fault(learned: float, noise: float, off: float, away: float) -> str:
    """Say why an export is not good, by means of |Δ log p|; empty if it is.

    learned: of adapter and base. noise: of rounding alone. off, away: of the export and the adapter, and the base.
    """
    if not off <= max(WIDTH * noise, FLOOR):
        return (
            f"the export differs from the adapter by {off:.2g} nats a token, more than {WIDTH:g} times the {noise:.2g}"
            f" of rounding; {REMEDY}"
        )
    if not away > APART * off:
        return (
            f"the adapter changes {learned:.2g} nats a token, which is lost where the export's rounding changes"
            f" {off:.2g}; {REMEDY}"
        )
    return ""


def load(path: str, **settings: Any) -> Any:
    """Return the model of a folder in float32, on a card if there is one."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **settings)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def read_probes(trained: Trained) -> list[Probe]:
    """Return held-out samples in the run's folder, shortest first. An answer ends as answers do."""
    tokenizer = AutoTokenizer.from_pretrained(trained.model_path)
    names = ("eval-final", "eval-base", *reversed(trained.run.sampled_updates()))
    rows = next(filter(None, map(trained.run.samples, names)), None)
    if rows is None:
        raise BadInput(f"there are no samples in {trained.run.path / 'samples'} to verify an export with: restore some")

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    probes = [(ids(row.prompt), [*ids(row.response), tokenizer.eos_token_id][:PROBE_TOKENS]) for row in rows[:PROBES]]
    return sorted(probes, key=lambda probe: len(probe[0]) + len(probe[1]))


@torch.inference_mode()
def logprobs(model: Any, probes: list[Probe]) -> Tensor:
    """Return the log-probability of every token of the probes' answers."""
    parts = []
    for batch in batches(probes, model.config.vocab_size):
        ids = [torch.tensor([*prompt, *answer]) for prompt, answer in batch]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(model.device)
        first = min(len(prompt) for prompt, _ in batch) - 1
        # Padding is behind each text, which looks back only.
        logits = model(input_ids=padded, logits_to_keep=padded.shape[1] - first, use_cache=False).logits
        for row, (prompt, answer) in enumerate(batch):
            start = len(prompt) - 1 - first
            scored = logits[row, start : start + len(answer)].float().log_softmax(-1)
            parts.append(scored.gather(1, torch.tensor(answer, device=scored.device)[:, None])[:, 0].cpu())
    return torch.cat(parts)


def batches(probes: list[Probe], vocabulary: int) -> Iterator[list[Probe]]:
    """Yield the probes in batches within BATCH_TOKENS and BATCH_LOGITS, or of one."""
    batch: list[Probe] = []
    for probe in probes:
        grown = [*batch, probe]
        longest = max(len(prompt) + len(answer) for prompt, answer in grown)
        kept = longest - min(len(prompt) for prompt, _ in grown) + 1
        fits = len(grown) * longest <= BATCH_TOKENS and len(grown) * kept * vocabulary <= BATCH_LOGITS
        if batch and not fits:
            yield batch
            grown = [probe]
        batch = grown
    yield batch


@torch.no_grad()
def round_weights(model: Any) -> Any:
    """Round a model's matrices, but for an adapter's, to q8_0 and return it."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and ".lora_" not in name:
            packed = quantize(weight.cpu().numpy(), GGMLQuantizationType.Q8_0)
            weight.copy_(torch.from_numpy(dequantize(packed, GGMLQuantizationType.Q8_0)))
    return model


def difference(between: str, left: Tensor, right: Tensor) -> Difference:
    """Summarise |Δ log p|."""
    delta = (left - right).abs()
    return Difference(between, delta.mean().item(), delta.quantile(0.99).item(), delta.max().item())

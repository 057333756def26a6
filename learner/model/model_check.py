"""Checks before training that the learner's packed samples give the log-probabilities that transformers gives for
each sample alone, and that fused kernels do not change them.

A difference counts if it exceeds the effect of rounding on the same model, which is measured: the embeddings are moved
by one rounding error each, and transformers computes again. The effect depends on dtype, depth and weights; two correct
computations differ by 0.4 to 1.2 times as much.

In bfloat16 it is large: 0.2 nats on a model of thirty layers. So besides the whole model, the first layer of each kind
is compared in float32, under a head whose logits are as large as any soft cap, with a sliding window that the samples
exceed. A mistake is then at least a hundred times the noise.
"""

import copy
import gc
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from microbudget_rl.actors.models.text_part import FOREIGN
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.learner.model.architecture import layers_of
from microbudget_rl.learner.model.attention import PACKED, hidden_states
from microbudget_rl.learner.model.logprobs import head_of, token_logprobs
from microbudget_rl.learner.model.mixers import mixers_of, separate
from microbudget_rl.learner.packing import MicroBatch, Tokens, pack

log = logging.getLogger(__name__)

BAND = 5.0
"""Multiple of the measured noise beyond which a difference counts."""

FLOOR = 2e-5
"""Nats below which a difference is float32's rounding of the log-probabilities themselves."""

Lengths = tuple[tuple[int, tuple[int, ...]], ...]

WHOLE: Lengths = ((9, (4,)), (3, (3, 1)))
"""Tokens of each prompt, and of the responses to it, for the whole model: few, because every start waits for them."""

PART: Lengths = ((40, (9,)), (5, (6, 2)))
"""Likewise for the first layers: long beside short, and a shared prompt."""

WINDOW = 16
"""Sliding window of the first layers, tokens: shorter than the longest sample."""

SHARP = 30.0
"""Approximate largest logit under the scaled head: Gemma 2's soft cap."""

START = 2
"""Number of tokens that all prompts have in common."""

ROWS = 4096
"""Most tokens of the vocabulary that the first layers' copy has. In float32 the embedding and head of a 7B model would
take 4 GiB, beside a learner whose GPU memory is planned without them."""

KIND = (bool, int, str, type(None))
"""Types of the attributes that distinguish kinds of modules; numbers such as an initial scale do not."""


@contextmanager
def collected() -> Iterator[None]:
    """As a decorator: free what a function leaves in reference cycles, in which fused kernels bind a copy's methods to
    it. On a GPU a copy of a 7B model's first layers has 1.5 GiB, which the plan has no room for later on.
    """
    yield
    gc.collect()
    torch.cuda.empty_cache()


@collected()
def check_model(base: Any, attention: str = PACKED) -> None:
    """Raise BadInput if the packed log-probabilities of a causal language model are not its own; leave it in eval mode.
    A difference in bfloat16 alone is a warning: its noise may be larger than measured.

    base: with the adapter's layers in place; device and dtype stay. attention: the implementation that packs samples.
    """
    name = base.config.name_or_path
    try:
        sharp = (_sharp_part(base), PART, "of its first layers, in float32, its head scaled")
        for model, lengths, part in (sharp, (base, WHOLE, "as it is")):
            difference, noise = _compare(model, _samples(model, lengths), attention)
            said = f"model {name}: its log-probabilities ({part}) differ from transformers' by {difference:.2g} nats, "
            said += f"rounding moves them by {noise:.2g}"
            if difference <= max(FLOOR, BAND * noise):
                log.info(said)
            elif model.dtype is torch.float32 or not math.isfinite(difference):
                raise BadInput(f"{said}: the learner lacks something that this model computes; choose another model")
            else:
                log.warning("%s; in float32 its first layers agree, so that it is trained all the same", said)
    except torch.OutOfMemoryError:
        raise
    except FOREIGN as error:
        fault = f"model {name}: its code in transformers does not take packed samples ({type(error).__name__}: {error})"
        raise BadInput(f"{fault}; choose a model of the Llama, Qwen or Mistral kind") from error


@collected()
@torch.no_grad()
def change_of(base: Any, change: Callable[[Any], None], device: torch.device) -> tuple[float, float]:
    """Return how far a change to a model moves its log-probabilities, and the effect of rounding on them, in nats.

    Both are measured on a copy of its first layers on a device, in float32, as in `check_model`; the model itself does
    not change.
    """
    part = _sharp_part(base).to(device)
    samples = _samples(part, PART)
    plain = [_alone(part, sample) for sample in samples]
    with _rounded(part.get_input_embeddings()):
        noise = _distance([_alone(part, sample) for sample in samples], plain)
    change(part)
    return _distance([_alone(part, sample) for sample in samples], plain), noise


def fuse(base: Any, device: torch.device) -> bool:
    """Give a causal language model fused kernels before an adapter is attached; return whether it has them.

    It keeps its own if liger-kernel is not installed or has none, or if a copy of its first layers computes something
    else with them on this device. Otherwise every model of the family that this process builds later has them.
    """
    family = base.config.model_type
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN
    except ImportError as error:
        return _plain(family, f"liger-kernel cannot be imported: {error}")
    if family not in KNOWN:
        return _plain(family, "liger-kernel has no others")

    def apply(model: Any) -> None:
        # Head and losses are our own (learner.model.logprobs).
        KNOWN[family](model=model, cross_entropy=False, fused_linear_cross_entropy=False)

    modeling = vars(sys.modules[type(base).__module__])
    saved = dict(modeling)
    difference, noise = change_of(base, apply, device)
    log.info("fused kernels change log-probabilities by %.2g nats, rounding by %.2g", difference, noise)
    if not difference <= max(FLOOR, BAND * noise):
        modeling.update(saved)
        return _plain(family, f"fused ones change log-probabilities by {difference:.2g} nats, rounding by {noise:.2g}")
    apply(base)
    return True


def _plain(family: str, why: str) -> bool:
    remedy = "it learns slower than planned, and computes activations twice to fit the plan"
    log.warning("model family %s keeps its plain kernels (%s): %s", family, remedy, why)
    return False


def delta_rule_serves(family: str) -> bool:
    """Return whether the kernels for a family's gated delta rule, if it has one, can be imported. Otherwise
    transformers computes it in plain torch, and hides the error.
    """
    try:
        if family == "qwen3_5_text":
            import fla  # noqa: F401
    except Exception as error:  # Triton raises others than ImportError
        return _plain(family, f"flash-linear-attention cannot be imported: {error!r}")
    return True


@torch.no_grad()
def _compare(base: Any, samples: list[Tokens], attention: str) -> tuple[float, float]:
    """Return how far the packed log-probabilities are from those of each sample alone, and the effect of rounding on
    the latter, 0 if the former is negligible.

    Both are in nats, as means over a sample's tokens, for the sample with the largest mean.
    """
    (batch,) = pack(samples, 1000, whole=bool(mixers_of(base)))
    ordered = [samples[i] for i in batch.samples]
    base.eval()
    base.set_attn_implementation("eager")  # every model's own mathematics
    alone = [_alone(base, sample) for sample in ordered]
    targets = [_targets(logprobs, sample) for logprobs, sample in zip(alone, ordered, strict=True)]
    expected = [logprobs.gather(1, chosen) for logprobs, chosen in zip(alone, targets, strict=True)]
    base.set_attn_implementation(attention)
    difference = _distance(_packed(base, batch.to(base.device), targets), expected)
    if difference <= FLOOR:
        return difference, 0.0
    base.set_attn_implementation("eager")
    with _rounded(base.get_input_embeddings()):
        moved = [_alone(base, sample).gather(1, chosen) for sample, chosen in zip(ordered, targets, strict=True)]
    return difference, _distance(moved, expected)


def _samples(base: Any, lengths: Lengths) -> list[Tokens]:
    """Return random samples of the vocabulary's second half: on special tokens bfloat16 can be far off."""
    size, generator = base.get_input_embeddings().weight.shape[0], torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(size // 2, size, (count,), generator=generator).tolist())

    start = ids(START)
    prompts = [start + ids(count - START) for count, _ in lengths]
    return [Tokens(prompt, ids(n)) for prompt, (_, ends) in zip(prompts, lengths, strict=True) for n in ends]


def _alone(base: Any, sample: Tokens) -> Tensor:
    """Return transformers' log-probabilities at the positions that predict a sample's response, [t, v]."""
    ids = torch.tensor([[*sample.prompt, *sample.response]], device=base.device)
    separate(base, None)
    logits: Tensor = base(input_ids=ids, use_cache=False, logits_to_keep=len(sample.response) + 1).logits
    return logits[0, :-1].float().log_softmax(-1)


def _targets(logprobs: Tensor, sample: Tokens) -> Tensor:
    """Return the tokens to compare at each position, [t, 3]: the response's, the likeliest, the least likely."""
    response = torch.tensor([*sample.response], device=logprobs.device)
    return torch.stack((response, logprobs.argmax(-1), logprobs.argmin(-1)), dim=1)


def _packed(base: Any, batch: MicroBatch, targets: list[Tensor]) -> list[Tensor]:
    """Return the learner's log-probabilities of these targets by sample, in training mode, where a dropout would show.

    The adapter's own dropout, which is intended, is off.
    """
    base.train()
    for module in base.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.eval()
    hidden = hidden_states(base, batch)[batch.predictors]
    base.eval()
    head = head_of(base)
    columns = [
        token_logprobs(hidden, head, chosen.contiguous(), 1.0, len(hidden))[0] for chosen in torch.cat(targets).T
    ]
    return list(torch.stack(columns, dim=1).split([len(chosen) for chosen in targets]))


def _distance(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    gaps = [(a - b).abs().mean() for a, b in zip(left, right, strict=True)]
    return torch.stack(gaps).max().item() if all(gap.isfinite() for gap in gaps) else float("nan")


@contextmanager
def _rounded(embedding: nn.Module) -> Iterator[None]:
    """Move the embedding's output by about one rounding error of its dtype; on exit it is as before."""

    def move(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        generator = torch.Generator(output.device).manual_seed(0)
        errors = torch.randn(output.shape, device=output.device, generator=generator)
        return (output.float() * (1.0 + torch.finfo(output.dtype).eps * errors)).to(output.dtype)

    hook = embedding.register_forward_hook(move)
    try:
        yield
    finally:
        hook.remove()


def _sharp_part(base: Any) -> Any:
    """Return a float32 copy of the first layer of each kind and the first two, with ROWS tokens and logits of SHARP."""
    layers = layers_of(base)
    whole, kinds = list(layers), [_kind(layer) for layer in layers]
    places = sorted({*range(len(whole))[:2], *map(kinds.index, kinds)})
    del layers[:]
    layers.extend(whole[place] for place in places)
    ends = [each.weight for each in base.modules() if isinstance(each, nn.Embedding)]
    ends.append(base.get_output_embeddings().weight)
    try:
        part = copy.deepcopy(base, {id(end): nn.Parameter(end.detach()[-ROWS:].clone(), False) for end in ends}).float()
    finally:
        del layers[:]
        layers.extend(whole)
    if types := vars(part.config).get("layer_types"):
        part.config.layer_types = [types[place] for place in places]
    part.get_input_embeddings().padding_idx = None
    for each in (part.config, *part.modules()):
        if getattr(each, "sliding_window", None):
            each.sliding_window = WINDOW
    with torch.no_grad():
        part.set_attn_implementation("eager")
        largest = _alone(part.eval(), _samples(part, PART)[0])
        spread = largest.amax() - largest.mean()
        part.get_output_embeddings().weight.mul_(SHARP / spread)
    return part


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """Return the attributes that distinguish a layer's kind from others in its model."""
    return tuple(
        (name, type(module).__name__, key, value)
        for name, module in layer.named_modules()
        for key, value in sorted(vars(module).items())
        if isinstance(value, KIND) and "layer_idx" not in key and key != "training"
    )

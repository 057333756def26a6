"""Splitting samples into forward passes of bounded size."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

SHARING_PAYS_BELOW = 0.8
"""Prompts are shared when that leaves fewer than this share of the padded tokens: the second pass against the cached
prompt needs an explicit attention mask, which turns the fast causal kernel off."""


class Tokens(NamedTuple):
    """What a sample is to the learner: at least one prompt token, and the response drawn after it."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


@dataclass(frozen=True)
class MicroBatch:
    """b samples for one forward pass: g cached prefixes, and the rows that continue them.

    Right padding everywhere: under causal attention no real position sees it. Without sharing p is 0 and a row is
    prompt + response; with sharing the prefix is the prompt but for its last token, and a row is that token + response.
    The last response token is never an input.

    samples: int [b], positions in the list given to `pack`; results come in this order, sample by sample.
    prefixes: int64 [g, p]. prefix_lengths: int64 [g]. owners: int64 [b], the prefix of each row. rows: int64 [b, s].
    places: int64 [t], positions in the flattened [b · s] that predict the response tokens. targets: int64 [t].
    tokens: how many input tokens are real.
    """

    samples: tuple[int, ...]
    prefixes: Tensor
    prefix_lengths: Tensor
    owners: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor
    tokens: int

    @property
    def padded_tokens(self) -> int:
        return self.prefixes.numel() + self.rows.numel()

    def to(self, device: torch.device) -> "MicroBatch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def pack(samples: Sequence[Tokens], budget: int, share_prompts: bool = True) -> list[MicroBatch]:
    """Micro-batches of at most `budget` padded tokens (a sample that alone exceeds it gets its own), longest first.

    Samples with an empty response are left out. Where `share_prompts` allows it and it pays, samples with the same
    prompt share one forward pass over it; a micro-batch that ends amid them repeats the prompt.
    """
    plain = _split(samples, budget, share=False)
    if share_prompts:
        shared = _split(samples, budget, share=True)
        if _padded(samples, shared, share=True) < SHARING_PAYS_BELOW * _padded(samples, plain, share=False):
            return [_build(samples, part, share=True) for part in shared]
    return [_build(samples, part, share=False) for part in plain]


def _split(samples: Sequence[Tokens], budget: int, share: bool) -> list[list[int]]:
    longest: dict[tuple[int, ...], int] = {}
    for prompt, response in samples:
        longest[prompt] = max(longest.get(prompt, 0), len(response))

    def order(index: int) -> tuple[object, ...]:
        prompt, response = samples[index]
        if share:
            return -longest[prompt], prompt, -len(response)
        return (-len(prompt) - len(response),)

    parts: list[list[int]] = []
    for index in sorted((i for i, sample in enumerate(samples) if sample.response), key=order):
        if parts and _size(samples, [*parts[-1], index], share) <= budget:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def _size(samples: Sequence[Tokens], part: list[int], share: bool) -> int:
    """Padded input tokens of one micro-batch."""
    if not share:
        return len(part) * max(len(samples[i].prompt) + len(samples[i].response) - 1 for i in part)
    prompts = {samples[i].prompt for i in part}
    rows = len(part) * max(len(samples[i].response) for i in part)
    return len(prompts) * (max(map(len, prompts)) - 1) + rows


def _padded(samples: Sequence[Tokens], parts: list[list[int]], share: bool) -> int:
    return sum(_size(samples, part, share) for part in parts)


def _build(samples: Sequence[Tokens], part: list[int], share: bool) -> MicroBatch:
    prompts = list(dict.fromkeys(samples[i].prompt for i in part))
    prefixes = [prompt[:-1] if share else () for prompt in prompts]
    rows: list[tuple[int, ...]] = []
    places: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for i in part:
        prompt, response = samples[i]
        rows.append((prompt[-1:] if share else prompt) + response[:-1])
        owners.append(prompts.index(prompt))
        targets.extend(response)
    width = max(map(len, rows))
    for number, (i, row) in enumerate(zip(part, rows, strict=True)):
        end = number * width + len(row)
        places.extend(range(end - len(samples[i].response), end))
    return MicroBatch(
        samples=tuple(part),
        prefixes=_pad(prefixes),
        prefix_lengths=torch.tensor([len(prefix) for prefix in prefixes]),
        owners=torch.tensor(owners),
        rows=_pad(rows),
        places=torch.tensor(places),
        targets=torch.tensor(targets),
        tokens=sum(map(len, prefixes)) + sum(map(len, rows)),
    )


def _pad(rows: Sequence[tuple[int, ...]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + (0,) * (width - len(row)) for row in rows], dtype=torch.int64)

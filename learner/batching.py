"""Splitting samples into forward passes of bounded size."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_PER_TOKEN = 2
"""A micro-batch may have so many positions in attention, where each sample repeats its prompt, for a token elsewhere.
A position in attention keeps about a seventh of what a token keeps in all."""

FULL = 0.92
"""A row joins a block if it fills at least this share of its width: with lengths spread evenly, 4 % is padding."""


class Tokens(NamedTuple):
    """What a sample is to the learner: at least one prompt token, and the response drawn after it."""

    prompt: tuple[int, ...]
    response: Sequence[int]


@dataclass(frozen=True)
class MicroBatch:
    """b samples for one forward pass over n tokens: each different prompt once, then the responses to it.

    The last response token is never an input.

    samples: positions in the list given to `pack`, b of them; results come in this order, sample by sample.
    ids, positions: int64 [n], tokens and their places in their sequences. blocks: int64 [b_i, s_i] each, the rows of
    attention: indices into `ids` of a sample's prompt and response, right-padded with any (under causal attention no
    real position sees it). homes: int64 [n], the position in all blocks' flattened rows where a token's own output is.
    places: int64 [t], indices into `ids` of what predicts the response tokens. targets: int64 [t].
    rows: how many positions of the blocks are not padding.
    """

    samples: tuple[int, ...]
    ids: Tensor
    positions: Tensor
    blocks: tuple[Tensor, ...]
    homes: Tensor
    places: Tensor
    targets: Tensor
    rows: int

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def padded_rows(self) -> int:
        """Positions of the blocks, padding included."""
        return sum(block.numel() for block in self.blocks)

    def to(self, device: torch.device) -> "MicroBatch":
        names = ("ids", "positions", "homes", "places", "targets")
        moved = {name: getattr(self, name).to(device) for name in names}
        return replace(self, **moved, blocks=tuple(block.to(device) for block in self.blocks))


def pack(samples: Sequence[Tokens], budget: int) -> list[MicroBatch]:
    """Micro-batches of at most `budget` tokens (a sample that alone exceeds it gets its own).

    Samples with an empty response are left out. Those with the same prompt stand together; a micro-batch that ends
    amid them repeats the prompt.
    """
    return [_build(samples, part) for part in _split(samples, budget)]


def _split(samples: Sequence[Tokens], budget: int) -> Iterator[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.response:
            groups[sample.prompt].append(index)
    part: list[int] = []
    tokens = rows = 0
    for prompt, members in groups.items():
        known = False
        for index in sorted(members, key=lambda i: -len(samples[i].response)):
            new = len(samples[index].response) - 1
            row = len(prompt) + new
            if part and (tokens + (new if known else row) > budget or rows + row > ROWS_PER_TOKEN * budget):
                yield part
                part, tokens, rows, known = [], 0, 0, False
            part.append(index)
            tokens += new if known else row
            rows += row
            known = True
    if part:
        yield part


def _build(samples: Sequence[Tokens], part: list[int]) -> MicroBatch:
    part = sorted(part, key=lambda i: -len(samples[i].prompt) - len(samples[i].response))
    ids: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    prompts: dict[tuple[int, ...], range] = {}
    rows: list[list[int]] = []
    for i in part:
        prompt, response = samples[i]
        if prompt not in prompts:
            prompts[prompt] = range(len(ids), len(ids) + len(prompt))
            ids.extend(prompt)
            positions.extend(range(len(prompt)))
        row = [*prompts[prompt], *range(len(ids), len(ids) + len(response) - 1)]
        ids.extend(response[:-1])
        positions.extend(range(len(prompt), len(row)))
        places.extend(row[len(prompt) - 1 :])
        rows.append(row)
    blocks = list(_blocks(rows))
    return MicroBatch(
        samples=tuple(part),
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        blocks=tuple(_pad(block) for block in blocks),
        homes=torch.tensor(_homes(blocks)),
        places=torch.tensor(places),
        targets=torch.tensor([token for i in part for token in samples[i].response]),
        rows=sum(map(len, rows)),
    )


def _blocks(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Rows, longest first, in blocks of nearly equal length."""
    block: list[list[int]] = []
    for row in rows:
        if block and len(row) < FULL * len(block[0]):
            yield block
            block = []
        block.append(row)
    yield block


def _homes(blocks: list[list[list[int]]]) -> list[int]:
    """Where each token comes first in the flattened, padded rows; tokens come first in the order of their indices."""
    homes: list[int] = []
    start = 0
    for block in blocks:
        for row in block:
            known = len(homes)
            homes.extend(start + column for column, index in enumerate(row) if index >= known)
            start += len(block[0])
    return homes


def _pad(block: list[list[int]]) -> Tensor:
    return torch.tensor([row + row[-1:] * (len(block[0]) - len(row)) for row in block])

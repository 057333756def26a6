"""From verified groups to micro-batches: the samples to learn from, divided among the ranks and packed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from actors.messages import Group
from conf.schema import AlgorithmConfig
from learner.advantages import group_advantages

ROWS_PER_TOKEN = 2
"""Attention repeats the prompt for every sample: it may have so many positions for each token of a micro-batch.
A position in attention keeps about a seventh of what a token keeps in all."""

FULL = 0.92
"""A row joins a block if it fills at least this share of its width: with lengths spread evenly, 4 % is padding."""


class Tokens(NamedTuple):
    """The token ids of a sample: at least one of the prompt, and the response to it."""

    prompt: tuple[int, ...]
    response: Sequence[int]


@dataclass(frozen=True)
class Example:
    """A sample to learn from.

    name: for people, "group 12 sample 3"
    engine: the engine's log-probability of each response token
    """

    name: str
    tokens: Tokens
    engine: Sequence[float]
    advantage: float


def examples(groups: Iterable[Group], algorithm: AlgorithmConfig) -> Iterator[Example]:
    """Yield the samples with a gradient: those with an advantage, and with a KL or entropy term all others too.

    Samples without a verdict are left out. With `mask_truncated` so are those that hit the limit, after they have
    counted in their group's baseline.
    """
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards], dtype=torch.float64)
        masked = torch.tensor([reward.masked for reward in group.rewards])
        advantages = group_advantages(rewards, masked, algorithm.advantages).tolist()
        rows = zip(group.samples, group.rewards, advantages, strict=True)
        for number, (sample, reward, advantage) in enumerate(rows):
            left_out = reward.masked or (algorithm.mask_truncated and sample.truncated)
            if sample.token_ids and not left_out and (advantage or algorithm.regularised):
                tokens = Tokens(group.problem.prompt_ids, sample.token_ids)
                yield Example(f"group {group.index} sample {number}", tokens, sample.logprobs, advantage)


def divide(samples: Sequence[Tokens], ranks: int) -> list[list[int]]:
    """Return each rank's positions in `samples`: neighbours together, about the same work for all.

    Work is input tokens; a prompt counts once for all its samples. Every rank is within one sample of the mean and can
    be left with none. At most `ranks` - 1 groups are cut, and their prompts computed twice.
    """
    uses = Counter(prompt for prompt, _ in samples)
    work = [len(prompt) / uses[prompt] + len(response) for prompt, response in samples]
    total = sum(work)
    parts: list[list[int]] = [[] for _ in range(ranks)]
    for position, (own, done) in enumerate(zip(work, accumulate(work), strict=True)):
        parts[int((done - own / 2) * ranks / total)].append(position)
    return parts


@dataclass(frozen=True)
class MicroBatch:
    """b samples for one forward pass over n tokens: each different prompt once, then the responses to it.

    The last token of a response is never an input.

    samples: b positions in the list given to `pack`, in the order of the results
    ids: int64 [n], the tokens
    positions: int64 [n], their places in their sequences
    blocks: int64 [b_i, s_i] each, the rows of attention: indices into `ids` of a sample's prompt and response. Rows are
        padded on the right with any token, since causal attention does not look there.
    homes: int64 [n], where a token's output is in the flattened rows of all blocks: where it comes first
    places: int64 [t], indices into `ids` of the tokens that predict the response
    targets: int64 [t], the response tokens
    rows: positions in the blocks that are not padding
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
        """Positions in the blocks, padding included."""
        return sum(block.numel() for block in self.blocks)

    def to(self, device: torch.device) -> "MicroBatch":
        names = ("ids", "positions", "homes", "places", "targets")
        moved = {name: getattr(self, name).to(device) for name in names}
        return replace(self, **moved, blocks=tuple(block.to(device) for block in self.blocks))


def pack(samples: Sequence[Tokens], budget: int) -> list[MicroBatch]:
    """Return micro-batches of at most `budget` tokens; a sample that alone exceeds it gets its own.

    Samples with an empty response are left out. Those of one prompt stand together; where a micro-batch ends amid them,
    the next one repeats the prompt.
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
        for index in sorted(members, key=lambda i: -len(samples[i].response)):
            row = len(prompt) + len(samples[index].response) - 1
            new = row - len(prompt) if part and samples[part[-1]].prompt == prompt else row
            if part and (tokens + new > budget or rows + row > ROWS_PER_TOKEN * budget):
                yield part
                part, tokens, rows, new = [], 0, 0, row
            part.append(index)
            tokens += new
            rows += row
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
    blocks = tuple(_blocks(rows))
    flat = torch.cat([block.flatten() for block in blocks])
    return MicroBatch(
        samples=tuple(part),
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        blocks=blocks,
        homes=flat.new_zeros(len(ids)).scatter_reduce(0, flat, torch.arange(len(flat)), "amin", include_self=False),
        places=torch.tensor(places),
        targets=torch.tensor([token for i in part for token in samples[i].response]),
        rows=sum(map(len, rows)),
    )


def _blocks(rows: list[list[int]]) -> Iterator[Tensor]:
    """Yield the rows, longest first, padded in blocks of nearly equal length."""
    block: list[list[int]] = []
    for row in rows:
        if block and len(row) < FULL * len(block[0]):
            yield torch.tensor(block)
            block = []
        width = len(block[0]) if block else len(row)
        block.append(row + row[-1:] * (width - len(row)))
    yield torch.tensor(block)

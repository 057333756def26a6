"""From verified groups to micro-batches: the samples to learn from, divided among the ranks and packed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor

from actors.messages import Group
from conf.schema import AlgorithmConfig
from learner.advantages import group_advantages

ROWS_PER_TOKEN = 2
"""Attention repeats the prompt for every sample: it may have so many positions for each token of a micro-batch.
A position in attention keeps about a seventh of what a token keeps in all; one that is only a key, at most half of it.
"""

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
    blocks: the rows of attention, padded
    homes: int64 [n], where a token's output is among the flattened queries of all blocks: where it comes first
    segments: the same rows without padding
    places: int64 [t], indices into `ids` of the tokens that predict the response
    targets: int64 [t], the response tokens
    rows: half of the queries and keys in the blocks that are not padding
    """

    samples: tuple[int, ...]
    ids: Tensor
    positions: Tensor
    blocks: tuple["Block", ...]
    homes: Tensor
    segments: "Segments"
    places: Tensor
    targets: Tensor
    rows: float

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def padded_rows(self) -> float:
        """Half of the queries and keys in the blocks, padding included."""
        return sum(block.queries.numel() + block.keys.numel() for block in self.blocks) / 2

    def to(self, device: torch.device) -> "MicroBatch":
        names = ("ids", "positions", "homes", "places", "targets")
        moved = {name: getattr(self, name).to(device) for name in names}
        blocks = tuple(block.to(device) for block in self.blocks)
        return replace(self, **moved, blocks=blocks, segments=self.segments.to(device))


@dataclass(frozen=True)
class Block:
    """Rows of attention of nearly equal length, padded on the right with any tokens.

    A response longer than its prompt makes a row with it, all of whose tokens are queries and keys. A shorter one asks
    alone, of itself and its prompt, whose own queries make one row for all its responses.

    queries: int64 [b, q], indices into `MicroBatch.ids`
    keys: int64 [b, k], likewise
    offsets: int64 [b], keys that come before a row's first query; None where all rows ask from their start, q = k
    """

    queries: Tensor
    keys: Tensor
    offsets: Tensor | None

    def seen(self, window: int | None) -> Tensor | None:
        """Return, as bool [b or 1, 1, q, k], what causal attention within a sliding window lets each query see; None
        where that is all that comes before it.
        """
        width, length = self.queries.shape[1], self.keys.shape[1]
        if self.offsets is None and (window is None or length <= window):
            return None
        offsets = self.keys.new_zeros(1) if self.offsets is None else self.offsets
        places = offsets[:, None] + torch.arange(width, device=offsets.device)
        # A query of the padding sees something too: the gradient of nothing seen is not a number.
        distance = places.clamp(max=length - 1)[:, None, :, None] - torch.arange(length, device=offsets.device)
        return (distance >= 0) if window is None else (distance >= 0) & (distance < window)

    def to(self, device: torch.device) -> "Block":
        offsets = None if self.offsets is None else self.offsets.to(device)
        return Block(self.queries.to(device), self.keys.to(device), offsets)


class Row(NamedTuple):
    """Indices of a row's tokens, all of them keys, those from an offset on queries too."""

    keys: list[int]
    offset: int


@dataclass(frozen=True)
class Segments:
    """The rows of attention one after another. The queries of a row are the tokens that come first in it, which are its
    last ones; its keys are all of it. All queries together are the tokens of a micro-batch, in order.

    pieces: lengths of the prompts and responses that a micro-batch consists of, in its order
    keys: pieces that the keys of all rows consist of
    query_ends, key_ends: int32 [rows + 1], where each row ends among the queries and keys, after a 0
    longest_query, longest_key: of a row
    """

    pieces: tuple[int, ...]
    keys: tuple[int, ...]
    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int

    def spread(self, tokens: Tensor) -> Tensor:
        """Return the keys of all rows, [k, …], given those of the micro-batch, [n, …]."""
        pieces = tokens.split(self.pieces)
        return torch.cat([pieces[number] for number in self.keys])

    def to(self, device: torch.device) -> "Segments":
        return replace(self, query_ends=self.query_ends.to(device), key_ends=self.key_ends.to(device))


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
    tokens, rows = 0, 0.0
    for prompt, members in groups.items():
        for index in sorted(members, key=lambda i: -len(samples[i].response)):
            new, more = _size(samples[index], repeated=bool(part) and samples[part[-1]].prompt == prompt)
            if part and (tokens + new > budget or rows + more > ROWS_PER_TOKEN * budget):
                yield part
                part, tokens, rows = [], 0, 0.0
                new, more = _size(samples[index], repeated=False)
            part.append(index)
            tokens += new
            rows += more
    if part:
        yield part


def _asks_alone(sample: Tokens) -> bool:
    """Whether a response's row holds no query of its prompt: half of such a row or more would be computed again."""
    return len(sample.response) <= len(sample.prompt)


def _size(sample: Tokens, repeated: bool) -> tuple[int, float]:
    """Return how many tokens a sample adds, and `MicroBatch.rows`; repeated: the one before has the same prompt."""
    prompt, asking = len(sample.prompt), len(sample.response) - 1
    tokens = asking if repeated else prompt + asking
    return tokens, tokens + prompt / 2 if _asks_alone(sample) else float(prompt + asking)


def _build(samples: Sequence[Tokens], part: list[int]) -> MicroBatch:
    part = sorted(part, key=lambda i: -len(samples[i].prompt) - len(samples[i].response))
    ids: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    prompts: dict[tuple[int, ...], range] = {}
    rows: list[list[int]] = []
    starts: list[int] = []
    for i in part:
        prompt, response = samples[i]
        starts.append(len(ids))
        if prompt not in prompts:
            prompts[prompt] = range(len(ids), len(ids) + len(prompt))
            ids.extend(prompt)
            positions.extend(range(len(prompt)))
        row = [*prompts[prompt], *range(len(ids), len(ids) + len(response) - 1)]
        ids.extend(response[:-1])
        positions.extend(range(len(prompt), len(row)))
        places.extend(row[len(prompt) - 1 :])
        rows.append(row)
    asking = _asking(rows, [samples[i] for i in part])
    blocks, homes = _blocks(asking, len(ids))
    return MicroBatch(
        samples=tuple(part),
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        blocks=blocks,
        homes=homes,
        segments=_segments(rows, [len(prompt) for prompt, _ in (samples[i] for i in part)], starts, len(ids)),
        places=torch.tensor(places),
        targets=torch.tensor([token for i in part for token in samples[i].response]),
        rows=sum(len(row.keys) - row.offset / 2 for row in chain(*asking)),
    )


def _asking(rows: list[list[int]], samples: Sequence[Tokens]) -> tuple[list[Row], list[Row]]:
    """Return what is asked in attention: whole rows and prompts, and responses that ask alone."""
    lengths = [len(sample.prompt) for sample in samples]
    alone = [_asks_alone(sample) for sample in samples]
    whole = [Row(row, 0) for row, short in zip(rows, alone, strict=True) if not short]
    asked = {row.keys[0] for row in whole}
    prompts = {row[0]: row[:length] for row, length in zip(rows, lengths, strict=True) if row[0] not in asked}
    responses = [Row(row, n) for row, n, short in zip(rows, lengths, alone, strict=True) if short and len(row) > n]
    return whole + [Row(prompt, 0) for prompt in prompts.values()], responses


def _blocks(kinds: Iterable[list[Row]], tokens: int) -> tuple[tuple[Block, ...], Tensor]:
    """Return the rows, longest first, padded in blocks of nearly equal length, and where each token asks first.

    Padding goes through all tokens in turn: a card adds up the gradients of one that comes often one by one.
    """
    filler = cycle(range(tokens))

    def padded(row: list[int], width: int) -> list[int]:
        return row + list(islice(filler, width - len(row)))

    blocks, asked, places, place = [], list[int](), list[Tensor](), 0
    for rows in chain.from_iterable(map(_alike, kinds)):
        queries = [row.keys[row.offset :] for row in rows]
        width = max(map(len, queries))
        for query in queries:
            asked += query
            places.append(torch.arange(place, place + len(query)))
            place += width
        asking = torch.tensor([padded(query, width) for query in queries])
        if rows[0].offset:
            keys = torch.tensor([padded(row.keys, len(rows[0].keys)) for row in rows])
            blocks.append(Block(asking, keys, torch.tensor([row.offset for row in rows])))
        else:
            blocks.append(Block(asking, asking, None))
    homes = torch.zeros(tokens, dtype=torch.int64)
    homes.scatter_reduce_(0, torch.tensor(asked), torch.cat(places), "amin", include_self=False)
    return tuple(blocks), homes


def _alike(rows: list[Row]) -> Iterator[list[Row]]:
    """Divide rows, longest first, into lists of nearly equal length."""
    alike: list[Row] = []
    for row in sorted(rows, key=lambda row: -len(row.keys)):
        if alike and len(row.keys) < FULL * len(alike[0].keys):
            yield alike
            alike = []
        alike.append(row)
    if alike:
        yield alike


def _segments(rows: list[list[int]], prompts: list[int], starts: list[int], tokens: int) -> Segments:
    """Return the rows as segments. prompts: length of each row's; starts: tokens that came before each row."""
    ends = [*starts[1:], tokens]
    pieces: list[int] = []
    begins: dict[int, int] = {}  # piece by its first token
    keys: list[int] = []
    queries, lengths = [0], [0]
    for row, prompt, start, end in zip(rows, prompts, starts, ends, strict=True):
        for first, last in ((row[0], row[0] + prompt), (end - (len(row) - prompt), end)):
            if last > max(first, start):
                begins[first] = len(pieces)
                pieces.append(last - first)
        if end > start:
            keys.append(begins[row[0]])
            if len(row) > prompt:
                keys.append(begins[row[prompt]])
            queries.append(end - start)
            lengths.append(len(row))
    counts = torch.tensor([queries, lengths], dtype=torch.int32)
    query_ends, key_ends = counts.cumsum(1, dtype=torch.int32)
    return Segments(tuple(pieces), tuple(keys), query_ends, key_ends, max(queries), max(lengths))

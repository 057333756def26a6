"""Divides samples among processes, and packs them into micro-batches in which no token is computed twice.

Three samples: responses a and b to the prompt S P, and c to the prompt S Q. S is the shared start of all prompts, such
as a system prompt. The last token of a response is never an input. Tokens that an environment wrote are inputs like all
others, and no targets.

    pieces      S         P     a                 b         Q     c       each once; their tokens are the input
    ids         s s s s   p p   a a a a a a a a   b b b b   q q   c c
    positions   0 1 2 3   4 5   6 7 8 9 …         6 7 8 9   4 5   6 7

    rows        S P a      S P b      S Q c                               attention sees one row per sample

    blocks      queries   keys      offset     rows of nearly equal length in one padded block
                S P a     S P a     0          a is longer than its prompt, so its row also queries the prompt
                b         S P b     6          a shorter response is queried alone, and so is
                Q         S Q       4          each piece that no row has queried
                c         S Q c     6

    segments    queries   keys                 the rows end to end, without padding: each queries those of its pieces
                S P a     S P a                that no row before it has, so that the queries are `ids`, in order
                b         S P b
                Q c       S Q c
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, cycle, islice, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from microbudget_rl.actors.messages import Spans

ENTRIES_PER_TOKEN = 2
"""Largest number of attention entries per token of a micro-batch: attention repeats the prompt for every sample.
An entry keeps about a seventh of a token's activations; one that is only a key, at most half of that."""

FULL = 0.92
"""Fraction of a block's width that a row must fill to join it: with evenly spread lengths, 4 % is padding."""


class Tokens(NamedTuple):
    """The token ids of a sample: a prompt of at least one token, and the response, parts of which may be given."""

    prompt: tuple[int, ...]
    response: Sequence[int]
    given: Spans = ()

    @property
    def sampled(self) -> list[int]:
        """The places of the sampled tokens in the response."""
        edges = [0, *chain.from_iterable(self.given), len(self.response)]
        return [*chain.from_iterable(map(range, edges[::2], edges[1::2]))]


@dataclass(frozen=True)
class MicroBatch:
    """b samples for one forward pass over n tokens.

    samples: b positions in the list given to `pack`, in the order of the results
    ids: int64 [n], the tokens
    positions: int64 [n], their positions in their sequences
    blocks: the rows of attention, padded
    output_places: int64 [n], index of a token's output among the flattened queries of all blocks, at its first place
    segments: the same rows without padding
    whole: every sample from its start, padded, for a model with mixers (`learner.model.mixers`); else empty
    whole_places: as `output_places`, in these rows
    predictors: int64 [t], indices into `ids` of the tokens that predict the sampled tokens
    targets: int64 [t], the sampled tokens
    entries: half the number of queries and keys in the blocks, without padding
    """

    samples: tuple[int, ...]
    ids: Tensor
    positions: Tensor
    blocks: tuple["Block", ...]
    output_places: Tensor
    segments: "Segments"
    whole: tuple["Block", ...]
    whole_places: Tensor
    predictors: Tensor
    targets: Tensor
    entries: float

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def padded_entries(self) -> float:
        """Half the number of queries and keys in the blocks, padding included."""
        return sum(block.queries.numel() + block.keys.numel() for block in self.blocks) / 2

    def to(self, device: torch.device) -> "MicroBatch":
        names = ("ids", "positions", "output_places", "whole_places", "predictors", "targets")
        moved = {name: getattr(self, name).to(device) for name in names}
        blocks, whole = (tuple(block.to(device) for block in rows) for rows in (self.blocks, self.whole))
        return replace(self, **moved, blocks=blocks, whole=whole, segments=self.segments.to(device))


@dataclass(frozen=True)
class Block:
    """Rows of attention of nearly equal length, padded on the right with arbitrary tokens.

    queries: int64 [b, q], indices into `MicroBatch.ids`
    keys: int64 [b, k], likewise
    offsets: int64 [b], number of keys before a row's first query; None if all rows query from their start, q = k
    """

    queries: Tensor
    keys: Tensor
    offsets: Tensor | None

    def seen(self, window: int | None) -> Tensor | None:
        """Return the causal mask within a window, bool [b or 1, 1, q, k]; None if a query attends to all before it."""
        width, length = self.queries.shape[1], self.keys.shape[1]
        if self.offsets is None and (window is None or length <= window):
            return None
        offsets = self.keys.new_zeros(1) if self.offsets is None else self.offsets
        places = offsets[:, None] + torch.arange(width, device=offsets.device)
        # A query of the padding attends to something too: with an empty row the gradient would be NaN.
        distance = places.clamp(max=length - 1)[:, None, :, None] - torch.arange(length, device=offsets.device)
        return (distance >= 0) if window is None else (distance >= 0) & (distance < window)

    def to(self, device: torch.device) -> "Block":
        offsets = None if self.offsets is None else self.offsets.to(device)
        return Block(self.queries.to(device), self.keys.to(device), offsets)


@dataclass(frozen=True)
class Segments:
    """The rows of attention end to end. The queries of a row are its last tokens, those in no row before it; its keys
    are the whole row.

    pieces: lengths of the micro-batch's pieces, in order
    keys: numbers of the pieces that make up the keys of all rows
    query_ends, key_ends: int32 [rows + 1], cumulative lengths of the rows' queries and keys, starting at 0
    longest_query, longest_key: longest of any row
    """

    pieces: tuple[int, ...]
    keys: tuple[int, ...]
    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int

    def spread(self, tokens: Tensor) -> Tensor:
        """Return the keys of all rows, [k, …], given those of the micro-batch, [n, …].

        It converts through float32, so that the gradients of a piece in many rows are added up in float32.
        """
        pieces = tokens.float().split(self.pieces)
        return torch.cat([pieces[number] for number in self.keys]).to(tokens.dtype)

    def to(self, device: torch.device) -> "Segments":
        return replace(self, query_ends=self.query_ends.to(device), key_ends=self.key_ends.to(device))


def divide(samples: Sequence[Tokens], processes: int) -> list[list[int]]:
    """Return each process's positions in `samples`: neighbours together, about the same work for all.

    Work is counted in input tokens. A prompt counts once for all its samples, without the shared start of all prompts,
    which every process computes. Every process is within one sample of the mean and may get none. Fewer
    groups are split than there are processes; the prompt of a split group is computed again.
    """
    uses, shared = Counter(sample.prompt for sample in samples), shared_start(samples)
    work = [(len(sample.prompt) - shared) / uses[sample.prompt] + len(sample.response) for sample in samples]
    total = sum(work)
    parts: list[list[int]] = [[] for _ in range(processes)]
    for position, (size, done) in enumerate(zip(work, accumulate(work), strict=True)):
        parts[int((done - size / 2) * processes / total)].append(position)
    return parts


def pack(samples: Sequence[Tokens], budget: int, whole: bool = False) -> list[MicroBatch]:
    """Return micro-batches of at most `budget` tokens; a sample that alone exceeds it gets its own.

    whole: each micro-batch also has its samples as whole rows, of at most ENTRIES_PER_TOKEN · `budget` tokens.
    Samples with an empty response are skipped. Those of one prompt stay together; if a micro-batch ends among them, the
    next one repeats the prompt. Every micro-batch repeats the shared start of all prompts.
    """
    shared = shared_start(samples)
    return [_build(samples, part, shared, whole) for part in _split(samples, budget, shared, whole)]


def _split(samples: Sequence[Tokens], budget: int, shared: int, whole: bool) -> Iterator[tuple[int, ...]]:
    """Yield the positions of each micro-batch's samples, longest first. shared: tokens that all prompts begin with."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.response:
            groups[sample.prompt].append(index)

    def longest_first(part: list[int]) -> tuple[int, ...]:
        return tuple(sorted(part, key=lambda i: -len(samples[i].prompt) - len(samples[i].response)))

    part: list[int] = []
    tokens, entries = 0, 0.0
    for prompt, members in groups.items():
        known = shared if part else 0
        for index in sorted(members, key=lambda i: -len(samples[i].response)):
            new, more = _size(samples[index], known, shared, whole)
            if part and (tokens + new > budget or entries + more > ENTRIES_PER_TOKEN * budget):
                yield longest_first(part)
                part, tokens, entries = [], 0, 0.0
                new, more = _size(samples[index], 0, shared, whole)
            part.append(index)
            tokens += new
            entries += more
            known = len(prompt)
    if part:
        yield longest_first(part)


def _queries_alone(sample: Tokens) -> bool:
    """Whether a response's row has no queries of its prompt: half of such a row or more would be computed again."""
    return len(sample.response) <= len(sample.prompt)


def _size(sample: Tokens, known: int, shared: int, whole: bool) -> tuple[int, float]:
    """Return the tokens that a sample adds to a micro-batch, and an upper bound of the entries that it adds.

    known: tokens of the prompt that are in it already. shared: number of tokens that all prompts have in common.
    """
    prompt, asking = len(sample.prompt), len(sample.response) - 1
    tokens = prompt - known + asking
    if not _queries_alone(sample):
        return tokens, float(prompt + asking)
    entries = tokens + (prompt + (shared if known < prompt else 0)) / 2
    return tokens, max(entries, prompt + asking) if whole else entries


def _build(samples: Sequence[Tokens], part: tuple[int, ...], shared: int, whole: bool) -> MicroBatch:
    """Return the micro-batch of the samples at these positions."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    pieces: list[range] = []
    rows: list[list[int]] = []  # numbers of pieces
    new_tokens: list[int] = []  # of each row, those in no row before it
    known: dict[tuple[int, ...], int] = {}  # pieces of prompts, by the prompt up to their end

    def add(tokens: Sequence[int], first_position: int) -> int:
        pieces.append(range(len(ids), len(ids) + len(tokens)))
        ids.extend(tokens)
        positions.extend(range(first_position, first_position + len(tokens)))
        return len(pieces) - 1

    members = [samples[i] for i in part]
    for sample in members:
        prompt, response = sample.prompt, sample.response
        start, row = len(ids), []
        for begin, end in ((0, shared), (shared, len(prompt))):
            if begin < end:
                if prompt[:end] not in known:
                    known[prompt[:end]] = add(prompt[begin:end], begin)
                row.append(known[prompt[:end]])
        before = [pieces[row[-1]][-1]]
        if len(response) > 1:
            row.append(add(response[:-1], len(prompt)))
            before.extend(pieces[row[-1]])
        predictors.extend(before[place] for place in sample.sampled)
        rows.append(row)
        new_tokens.append(len(ids) - start)
    asking = _queries(pieces, rows, [_queries_alone(sample) for sample in members])
    blocks, output_places = _blocks(asking, len(ids))
    alone = [AttentionRow([*chain(*(pieces[number] for number in row))], 0) for row in rows] if whole else []
    whole_rows, whole_places = _blocks([alone], len(ids)) if whole else ((), torch.empty(0, dtype=torch.int64))
    return MicroBatch(
        samples=part,
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        blocks=blocks,
        output_places=output_places,
        segments=_segments(pieces, rows, new_tokens),
        whole=whole_rows,
        whole_places=whole_places,
        predictors=torch.tensor(predictors),
        targets=torch.tensor([sample.response[place] for sample in members for place in sample.sampled]),
        entries=sum(len(row.keys) - row.offset / 2 for row in chain(*asking)),
    )


class AttentionRow(NamedTuple):
    """Indices of a row's tokens. All of them are keys; those from an offset on are queries too."""

    keys: list[int]
    offset: int


def _queries(pieces: list[range], rows: list[list[int]], alone: list[bool]) -> list[list[AttentionRow]]:
    """Return the rows of the blocks, by the pieces before their queries: samples, then pieces that none queries."""
    asked = {number for row, short in zip(rows, alone, strict=True) if not short for number in row}
    by_depth: dict[int, list[AttentionRow]] = defaultdict(list)
    for row, short in zip(rows, alone, strict=True):
        keys: list[int] = []
        for depth, number in enumerate(row):
            offset = len(keys)
            keys = [*keys, *pieces[number]]
            if number not in asked:
                asked.add(number)
                by_depth[depth].append(AttentionRow(keys, offset))
        if not short:
            by_depth[0].append(AttentionRow(keys, 0))
    return list(by_depth.values())


def _blocks(kinds: Iterable[list[AttentionRow]], tokens: int) -> tuple[tuple[Block, ...], Tensor]:
    """Return the rows, longest first, padded in blocks of nearly equal length, and the first query of each token.

    Padding cycles through all tokens: a GPU adds up the gradients of a frequent one sequentially.
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
    output_places = torch.zeros(tokens, dtype=torch.int64)
    output_places.scatter_reduce_(0, torch.tensor(asked), torch.cat(places), "amin", include_self=False)
    return tuple(blocks), output_places


def _alike(rows: list[AttentionRow]) -> Iterator[list[AttentionRow]]:
    """Yield lists of rows of nearly equal length, longest first."""
    alike: list[AttentionRow] = []
    for row in sorted(rows, key=lambda row: -len(row.keys)):
        if alike and len(row.keys) < FULL * len(alike[0].keys):
            yield alike
            alike = []
        alike.append(row)
    if alike:
        yield alike


def _segments(pieces: list[range], rows: list[list[int]], new_tokens: list[int]) -> Segments:
    asking = [(row, new) for row, new in zip(rows, new_tokens, strict=True) if new]
    queries = [0, *(new for _, new in asking)]
    lengths = [0, *(sum(len(pieces[number]) for number in row) for row, _ in asking)]
    query_ends, key_ends = torch.tensor([queries, lengths], dtype=torch.int32).cumsum(1, dtype=torch.int32)
    keys = tuple(chain.from_iterable(row for row, _ in asking))
    return Segments(tuple(map(len, pieces)), keys, query_ends, key_ends, max(queries), max(lengths))


def shared_start(samples: Sequence[Tokens]) -> int:
    """Return the number of tokens that all prompts have in common at their start."""
    columns = zip(*(sample.prompt for sample in samples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

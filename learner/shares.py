"""Which samples each rank computes."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from learner.batching import Tokens


def share_out(samples: Sequence[Tokens], ranks: int) -> list[list[int]]:
    """Positions in `samples` for each rank: every sample once, neighbours together, about the same work for all.

    Work is counted in input tokens, those of a prompt once for all its samples. No rank has more or less than the mean
    by more than one sample's, and no more than `ranks` - 1 runs of samples with the same prompt are cut, whose prompt
    is then computed twice. A rank can be left with none.
    """
    uses = Counter(prompt for prompt, _ in samples)
    work = [len(prompt) / uses[prompt] + len(response) for prompt, response in samples]
    total = sum(work)
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for position, (own, done) in enumerate(zip(work, accumulate(work), strict=True)):
        shares[int((done - own / 2) * ranks / total)].append(position)
    return shares

"""The record of an update while it is computed, and the metrics made from it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from microbudget_rl.conf.schema import AlgorithmConfig
from microbudget_rl.learner.losses import Observed, clipped_tokens
from microbudget_rl.learner.mismatch import describe_mismatch, k3
from microbudget_rl.learner.packing import MicroBatch


class UpdateRecord:
    """One process's record of an update.

    counts: tokens, entries, padded entries and trained tokens of a pass; over all passes, tokens compared and tokens
        clipped per bound
    columns: of the samples with an advantage, by name, one tensor per micro-batch, from before the first step
    losses, norms: of each step taken, of all processes together
    """

    def __init__(self, parts: Sequence[MicroBatch]) -> None:
        """parts: the micro-batches of a pass."""
        sizes = ("tokens", "entries", "padded_entries")
        self.counts: Counter[str] = Counter({name: sum(getattr(part, name) for part in parts) for name in sizes})
        self.columns: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.losses: list[float] = []
        self.norms: list[float] = []

    def add_before(self, logprobs: Tensor, entropy: Tensor, observed: Observed) -> None:
        """Record a micro-batch before the first step; logprobs, entropy: float [t]."""
        tokens = observed.advantages != 0
        samples = tokens[observed.lengths.cumsum(0) - 1]
        columns = {"policy": logprobs, "entropy": entropy, "engine": observed.engine}
        if observed.reference is not None:
            columns["reference"] = observed.reference
        for name, column in columns.items():
            self.columns[name].append(column[tokens].detach().cpu())
        self.columns["lengths"].append(observed.lengths[samples].cpu())
        self.counts["trained"] += len(tokens)

    def add_clipped(self, algorithm: AlgorithmConfig, logprobs: Tensor, observed: Observed) -> None:
        """Record a micro-batch of any step."""
        self.counts["compared"] += int(observed.advantages.count_nonzero())
        for name, tokens in clipped_tokens(algorithm, logprobs, observed).items():
            self.counts[f"clip/{name}"] += tokens


def update_metrics(algorithm: AlgorithmConfig, records: Sequence[UpdateRecord]) -> dict[str, float]:
    """Return an update's metrics under their names in metrics.jsonl, zeros where nothing was computed.

    Entropy, mismatch and KL describe the policy before its first step, and these and the clipped fractions only the
    samples with an advantage; without one they are absent. Loss, gradient norm and clipped fractions are means over the
    steps. Except for padding, the number of processes makes no difference.
    """
    counts: Counter[str] = Counter()
    parts: defaultdict[str, list[Tensor]] = defaultdict(list)
    for record in records:
        counts.update(record.counts)
        for name, column in record.columns.items():
            parts[name] += column
    columns = {name: torch.cat(column) for name, column in parts.items()}
    padded = counts["padded_entries"]
    metrics = {
        "loss": fmean(records[0].losses or [0.0]),
        "grad_norm": fmean(records[0].norms or [0.0]),
        "tokens/trained": float(counts["trained"]),
        "learner/padding": 1.0 - counts["entries"] / padded if padded else 0.0,
    }
    if not counts["compared"]:
        return metrics
    policy = columns["policy"]
    mismatch = describe_mismatch(policy, columns["engine"], columns["lengths"], algorithm.mismatch)
    metrics |= {
        "policy/entropy": columns["entropy"].mean().item(),
        **{f"mismatch/{name}": value for name, value in mismatch.items()},
        **{name: count / counts["compared"] for name, count in counts.items() if name.startswith("clip/")},
    }
    if "reference" in columns:
        metrics["policy/kl_to_base"] = k3(policy, columns["reference"]).mean().item()
    return metrics

"""What an update shows while it is computed, gathered into its metrics."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from conf.schema import AlgorithmConfig
from learner.batching import MicroBatch
from learner.losses import Observed, clipped_tokens
from learner.mismatch import describe_mismatch, k3


class Tally:
    """Of one update on one rank, or `joined` on all. The policy before its first step is described by entropy, mismatch
    and KL; loss, gradient norm and clip shares are means over its steps.
    """

    def __init__(self, algorithm: AlgorithmConfig, parts: Sequence[MicroBatch]) -> None:
        """parts: the micro-batches of a step."""
        self._algorithm = algorithm
        self._tokens = sum(part.tokens for part in parts)
        self._rows = sum(part.rows for part in parts)
        self._padded_rows = sum(part.padded_rows for part in parts)
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._logprobs: list[Tensor] = []
        self._entropies: list[Tensor] = []
        self._engine: list[Tensor] = []
        self._lengths: list[Tensor] = []
        self._bases: list[Tensor] = []
        self._clipped: Counter[str] = Counter()
        self._looked_at = 0

    def start(self, logprobs: Tensor, entropy: Tensor, observed: Observed) -> None:
        """A micro-batch before the first step; logprobs, entropy: float [t]."""
        self._logprobs.append(logprobs.detach().cpu())
        self._entropies.append(entropy.detach().cpu())
        self._engine.append(observed.engine.cpu())
        self._lengths.append(observed.lengths.cpu())
        if observed.base is not None:
            self._bases.append(observed.base.cpu())

    def look(self, logprobs: Tensor, observed: Observed) -> None:
        """A micro-batch of any step."""
        self._looked_at += logprobs.numel()
        self._clipped.update(clipped_tokens(self._algorithm, logprobs, observed))

    def step(self, loss: float, norm: float) -> None:
        """A step that was taken; both are of all ranks."""
        self._losses.append(loss)
        self._norms.append(norm)

    @classmethod
    def joined(cls, tallies: Sequence["Tally"]) -> "Tally":
        """What one rank alone would have seen, but for the order of micro-batches and their padding."""
        whole = cls(tallies[0]._algorithm, ())
        whole._losses, whole._norms = tallies[0]._losses, tallies[0]._norms
        for tally in tallies:
            whole._tokens += tally._tokens
            whole._rows += tally._rows
            whole._padded_rows += tally._padded_rows
            whole._clipped.update(tally._clipped)
            whole._looked_at += tally._looked_at
            for name in ("_logprobs", "_entropies", "_engine", "_lengths", "_bases"):
                getattr(whole, name).extend(getattr(tally, name))
        return whole

    def metrics(self) -> dict[str, float]:
        """Under their names in metrics.jsonl, and "tokens", the input tokens of a step. Zeros where nothing was
        computed.
        """
        metrics = {
            "loss": fmean(self._losses or [0.0]),
            "grad_norm": fmean(self._norms or [0.0]),
            "tokens/trained": float(sum(len(logprobs) for logprobs in self._logprobs)),
            "tokens": float(self._tokens),
            "learner/padding": 0.0,
        }
        if not self._logprobs:
            return metrics
        own, engine = torch.cat(self._logprobs), torch.cat(self._engine)
        mismatch = describe_mismatch(own, engine, torch.cat(self._lengths), self._algorithm.mismatch)
        metrics |= {
            "learner/padding": 1.0 - self._rows / self._padded_rows,
            "policy/entropy": torch.cat(self._entropies).mean().item(),
            **{f"mismatch/{name}": value for name, value in mismatch.items()},
            **{f"clip/{name}": count / self._looked_at for name, count in self._clipped.items()},
        }
        if self._bases:
            metrics["policy/kl_to_base"] = k3(own, torch.cat(self._bases)).mean().item()
        return metrics

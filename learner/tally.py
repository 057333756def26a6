"""What an update shows while it is computed, gathered into its metrics."""

from statistics import fmean

import torch
from torch import Tensor

from conf.schema import AlgorithmConfig
from learner.losses import Observed, clipped_tokens
from learner.microbatches import MicroBatch
from learner.mismatch import describe_mismatch, k3


class Tally:
    """Of one update. The policy before its first step is described by entropy, mismatch and KL; loss, gradient norm and
    clip shares are means over its steps.
    """

    def __init__(self, algorithm: AlgorithmConfig) -> None:
        self._algorithm = algorithm
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._logprobs: list[Tensor] = []
        self._entropies: list[Tensor] = []
        self._observed: list[Observed] = []
        self._clipped = dict.fromkeys(("low", "high", "dual"), 0.0)
        self._looked_at = 0

    def start(self, logprobs: Tensor, entropy: Tensor, observed: Observed) -> None:
        """A micro-batch before the first step; logprobs, entropy: float [t]."""
        self._logprobs.append(logprobs.detach())
        self._entropies.append(entropy.detach())
        self._observed.append(observed)

    def look(self, logprobs: Tensor, observed: Observed) -> None:
        """A micro-batch of any step."""
        self._looked_at += logprobs.numel()
        for name, count in clipped_tokens(self._algorithm, logprobs, observed).items():
            self._clipped[name] += count

    def step(self, loss: float, norm: float) -> None:
        """A step that was taken."""
        self._losses.append(loss)
        self._norms.append(norm)

    def metrics(self, parts: list[MicroBatch]) -> dict[str, float]:
        """Under their names in metrics.jsonl, and "tokens", the input tokens of a step; parts: all its
        micro-batches. Zeros where nothing was computed.
        """
        metrics = {
            "loss": fmean(self._losses or [0.0]),
            "grad_norm": fmean(self._norms or [0.0]),
            "tokens/trained": float(sum(len(logprobs) for logprobs in self._logprobs)),
            "tokens": float(sum(part.tokens for part in parts)),
            "learner/padding": 0.0,
        }
        if not self._observed:
            return metrics
        engine, lengths = (torch.cat([getattr(o, name) for o in self._observed]) for name in ("engine", "lengths"))
        own = torch.cat(self._logprobs)
        mismatch = describe_mismatch(own, engine, lengths, self._algorithm.mismatch)
        metrics |= {
            "learner/padding": 1.0 - sum(part.rows for part in parts) / sum(part.padded_rows for part in parts),
            "policy/entropy": torch.cat(self._entropies).mean().item(),
            **{f"mismatch/{name}": value for name, value in mismatch.items()},
            **{f"clip/{name}": count / self._looked_at for name, count in self._clipped.items()},
        }
        bases = [observed.base for observed in self._observed if observed.base is not None]
        if bases:
            metrics["policy/kl_to_base"] = k3(own, torch.cat(bases)).mean().item()
        return metrics

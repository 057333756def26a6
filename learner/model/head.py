"""The output head: from last hidden states to log-probabilities, with the scale and soft cap of some families."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from learner.model.logprobs import divergence, token_logprobs


@dataclass(frozen=True)
class Head:
    """Turns hidden states x into the logits c tanh(s x Wᵀ / c).

    weight: W, [v, h]
    scale: s
    cap: c, None for the logits s x Wᵀ
    """

    weight: Tensor
    scale: float = 1.0
    cap: float | None = None

    def logprobs(
        self, hidden: Tensor, targets: Tensor, temperature: float, chunk: int, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See `token_logprobs`."""
        return token_logprobs(
            hidden,
            self.weight,
            targets,
            temperature / self.scale,
            chunk,
            entropy_gradient,
            self.cap and self.cap / temperature,
        )

    def divergence(self, hidden: Tensor, base: Tensor, temperature: float, chunk: int) -> list[Tensor]:
        """See `learner.model.logprobs.divergence`."""
        cap = self.cap and self.cap / temperature
        return divergence(hidden, base, self.weight, temperature / self.scale, chunk, cap)


def head_of(base: Any) -> Head:
    """Return a causal language model's head by its configuration: Granite divides logits, Cohere multiplies them, Gemma
    2 caps them.
    """
    stated = base.config
    scale = (getattr(stated, "logit_scale", None) or 1.0) / (getattr(stated, "logits_scaling", None) or 1.0)
    return Head(base.get_output_embeddings().weight, scale, getattr(stated, "final_logit_softcapping", None))

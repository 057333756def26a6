"""The model under its adapter, from token ids to log-probabilities."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from microbudget_rl.learner.model.adapter import replaced
from microbudget_rl.learner.model.attention import PACKED, UNPADDED, hidden_states, unpadded_serves
from microbudget_rl.learner.model.logprobs import divergence, head_of, token_logprobs
from microbudget_rl.learner.model.mixers import mixers_of
from microbudget_rl.learner.model.model_check import check_model
from microbudget_rl.learner.packing import MicroBatch


class Policy(nn.Module):
    """A frozen causal language model with a LoRA adapter.

    temperature, chunk, entropy_gradient: see `token_logprobs`
    checkpointing: while training, recompute each block's activations instead of keeping them
    fused: on a GPU, compute attention without padding if its kernel is correct there
    mixes: whether the model has mixers, which need whole rows in a micro-batch
    reference: the adapter that KL and drift are measured from, by `adapter_weights`; empty for the bare model

    Raises BadInput unless its log-probabilities are those of transformers.
    """

    def __init__(
        self,
        model: PeftModel,
        temperature: float,
        chunk: int,
        entropy_gradient: bool = False,
        checkpointing: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk
        self.reference: dict[str, Tensor] = {}
        self.entropy_gradient = entropy_gradient
        unpadded = fused and model.device.type == "cuda" and unpadded_serves(model.config, model.device)
        attention = UNPADDED if unpadded else PACKED
        check_model(self._base, attention)
        self.mixes = bool(mixers_of(self._base))
        self._base.set_attn_implementation(attention)
        if checkpointing:
            self._base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def _base(self) -> Any:
        """The Hugging Face model, adapter layers in place."""
        return self.model.get_base_model()

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, float [t] each, of a micro-batch's response tokens."""
        hidden = hidden_states(self._base, batch)[batch.predictors]
        head = head_of(self._base)
        return token_logprobs(hidden, head, batch.targets, self.temperature, self.chunk, self.entropy_gradient)

    def as_reference(self) -> AbstractContextManager[None]:
        """Return a context in which the model is the reference."""
        return replaced(self.model, self.reference) if self.reference else self.model.disable_adapter()

    @torch.no_grad()
    def against_reference(self, batch: MicroBatch) -> list[Tensor]:
        """Return the policy's entropy, the reference's and KL(policy ‖ reference), float [t] each, at the responses."""
        hidden = hidden_states(self._base, batch)[batch.predictors]
        with self.as_reference():
            reference = hidden_states(self._base, batch)[batch.predictors]
        return divergence(hidden, reference, head_of(self._base), self.temperature, self.chunk)

"""The model under its adapter, from token ids to log-probabilities."""

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from conf.errors import BadInput
from learner.batching import MicroBatch, Tokens, pack
from learner.model.attention import NAME as PACKED
from learner.model.logprobs import divergence, token_logprobs

CHECKED = (Tokens((1, 2, 3, 4, 5), (6, 7)), Tokens((1, 2, 3, 4, 5), (8,)), Tokens((9, 8), (7, 6, 5, 4)))
"""Samples that a model is checked with. Ids count from the middle of its vocabulary: on the special tokens at the
beginning bfloat16 can be far off."""

TOLERANCE = 0.1
"""Share of the logits' norm: two ways through a bfloat16 model differ by less, a missing bias or scale by more."""


class Policy(nn.Module):
    """A frozen causal language model with a LoRA adapter.

    temperature, chunk, entropy_gradient: see `token_logprobs`
    checkpointing: while training, compute each block's activations again instead of keeping them

    Raises BadInput if the model's attention is not plain causal attention over each sequence, or its logits are not
    plainly its hidden states times its head (a bias, a scale or a soft cap would make every log-probability wrong).
    """

    def __init__(
        self,
        model: PeftModel,
        temperature: float,
        chunk: int,
        entropy_gradient: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.chunk = chunk
        self.entropy_gradient = entropy_gradient
        self._check()
        if checkpointing:
            self._base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def _base(self) -> Any:
        """The Hugging Face model, adapter layers in place."""
        return self.model.get_base_model()

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, float [t] each, of a micro-batch's response tokens."""
        return token_logprobs(
            self._hidden(batch)[batch.places],
            self._base.get_output_embeddings().weight,
            batch.targets,
            self.temperature,
            self.chunk,
            self.entropy_gradient,
        )

    @torch.no_grad()
    def against_base(self, batch: MicroBatch) -> list[Tensor]:
        """Return the policy's entropy, the base's and KL(policy ‖ base), float [t] each, at the response tokens."""
        hidden = self._hidden(batch)[batch.places]
        with self.model.disable_adapter():
            base = self._hidden(batch)[batch.places]
        return divergence(hidden, base, self._base.get_output_embeddings().weight, self.temperature, self.chunk)

    def _hidden(self, batch: MicroBatch) -> Tensor:
        """Return the last hidden state of every token, [n, h]."""
        ids, positions = batch.ids[None], batch.positions[None]
        layout = {"blocks": batch.blocks, "homes": batch.homes}
        output = self._base.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False, **layout)
        return output.last_hidden_state[0]

    @torch.no_grad()
    def _check(self) -> None:
        """Compare packed attention and the head with the model's own logits of each sample, then stay packed."""
        base = self._base.eval()
        middle = base.get_output_embeddings().weight.shape[0] // 2
        samples = [Tokens(*(tuple(middle + i for i in ids) for ids in sample)) for sample in CHECKED]
        (batch,) = pack(samples, 100)
        batch = batch.to(base.device)
        alone = []
        for prompt, response in (samples[i] for i in batch.samples):
            ids = torch.tensor([[*prompt, *response]], device=base.device)
            alone.append(base(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1])
        base.set_attn_implementation(PACKED)
        logits, expected = self._hidden(batch)[batch.places] @ base.get_output_embeddings().weight.T, torch.cat(alone)
        if not (logits - expected).float().norm() < TOLERANCE * expected.float().norm():
            raise BadInput(
                f"model {base.config.name_or_path}: its logits are not those of plain causal attention and of hidden "
                "states times output head; choose a model without bias, scale or soft cap at its head"
            )

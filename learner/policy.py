"""The model under its adapter, from token ids to log-probabilities."""

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import DynamicCache

from conf.errors import BadInput
from learner.logprobs import token_logprobs
from learner.microbatches import MicroBatch

HEAD_CHECK_TOKENS = 8


class Policy(nn.Module):
    """A frozen causal language model with a LoRA adapter. temperature, chunk, entropy_gradient: see
    `token_logprobs`. checkpointing: while training, compute each block's activations again instead of keeping them.

    Raises BadInput if the model's logits are not plainly its hidden states times its head (a bias, a scale or a soft
    cap would make every log-probability wrong).
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
        self.checkpointing = checkpointing
        self._check_head()
        if checkpointing:
            self._base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def _base(self) -> Any:
        """The Hugging Face model, adapter layers in place."""
        return self.model.get_base_model()

    @property
    def shares_prompts(self) -> bool:
        """Whether rows may continue a cached, right-padded prefix: attention must span the whole sequence in every
        layer, since a sliding window or a recurrence would count the padding. Not while activations are computed again,
        since the cache would then be filled twice.
        """
        if self.checkpointing and self.training:
            return False
        config = self.model.config
        layers = set(getattr(config, "layer_types", None) or ["full_attention"])
        return layers == {"full_attention"} and not getattr(config, "sliding_window", None)

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy, float [t] each, of the response tokens of a micro-batch on the model's device.

        With shared prefixes the keys and values of a prompt are computed once, with gradient, and copied to its rows.
        """
        decoder, head = self._base.get_decoder(), self._base.get_output_embeddings()
        if batch.prefixes.shape[1]:
            cache = DynamicCache()
            decoder(input_ids=batch.prefixes, past_key_values=cache, use_cache=True)
            cache.batch_select_indices(batch.owners)
            lengths = batch.prefix_lengths[batch.owners, None]
            prefix_mask = torch.arange(batch.prefixes.shape[1], device=lengths.device) < lengths
            hidden = decoder(
                input_ids=batch.rows,
                past_key_values=cache,
                use_cache=True,
                attention_mask=torch.cat([prefix_mask, torch.ones_like(batch.rows, dtype=torch.bool)], dim=1),
                position_ids=lengths + torch.arange(batch.rows.shape[1], device=lengths.device),
            ).last_hidden_state
        else:
            hidden = decoder(input_ids=batch.rows, use_cache=False).last_hidden_state
        return token_logprobs(
            hidden.flatten(0, 1)[batch.places],
            head.weight,
            batch.targets,
            self.temperature,
            self.chunk,
            self.entropy_gradient,
        )

    @torch.no_grad()
    def _check_head(self) -> None:
        base = self._base.eval()
        ids = torch.arange(HEAD_CHECK_TOKENS, device=base.device)[None]
        hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        expected = hidden @ base.get_output_embeddings().weight.T
        if not torch.allclose(base(input_ids=ids, use_cache=False).logits, expected, rtol=0.02, atol=0.02):
            raise BadInput(
                f"model {base.config.name_or_path}: its logits are not hidden states times output head; "
                "choose a model without bias, scale or soft cap at its head"
            )

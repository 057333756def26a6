"""Modules that mix neighbouring tokens by a convolution or a recurrent state: each sees every sample alone.

The tokens of a micro-batch are spread into whole rows, a sample from its start in each, padded on the right: a mixer is
causal. The outputs of a prompt's tokens are those of its first row. All modules around it keep the packed tokens.
"""

from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from microbudget_rl.learner.packing import MicroBatch


def mixers_of(base: Any) -> list[Any]:
    """Return a model's mixers: the modules that own a convolution."""
    return [m for m in base.get_decoder().modules() if any(isinstance(child, nn.Conv1d) for child in m.children())]


def separate(base: Any, batch: MicroBatch | None) -> None:
    """Have the mixers see each sample of a micro-batch alone until the next call; None: see their input as it is.

    The rows are kept on the module, because a backward pass that computes activations again runs in another thread.
    """
    for mixer in mixers_of(base):
        mixer.rows = batch and (batch.whole, batch.whole_places)
        mixer.forward = MethodType(_by_sample, mixer)
        # In training mode mamba-ssm's kernel multiplies with the weight of out_proj, past its adapter.
        mixer.training = False


def _by_sample(mixer: Any, hidden_states: Tensor, **settings: Any) -> Tensor:
    compute: Any = type(mixer).forward
    if mixer.rows is None:
        return cast(Tensor, compute(mixer, hidden_states, **settings))
    blocks, places = mixer.rows
    outputs = [compute(mixer, hidden_states[0][block.queries]).flatten(0, 1) for block in blocks]
    return torch.cat(outputs)[places][None]

"""Attention over packed rows in padded blocks. (`unpadded_serves` compares the GPU's kernel with them at run time.)"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from learner.examples import Tokens
from learner.model.attention import attend, attend_unpadded, unpadded_serves
from learner.packing import pack

HEADS, KV_HEADS, SIZE = 4, 2, 8

shapes = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=4
)


@settings(max_examples=25)
@given(shapes, st.integers(0, 5))
def test_no_gradient_reaches_a_token_through_padding(shapes: list, shared: int) -> None:
    """Padding repeats tokens of other samples, but only tokens of its own row move a row's output."""
    prompts = [((9,) * shared + (number,) * prompt, ends) for number, (prompt, ends) in enumerate(shapes)]
    rows = [Tokens(prompt, (7,) * length) for prompt, ends in prompts for length in ends]
    (batch,) = pack(rows, 1000)
    values = torch.randn(1, KV_HEADS, batch.tokens, SIZE, requires_grad=True)
    keys, queries = torch.randn(1, KV_HEADS, batch.tokens, SIZE), torch.randn(1, HEADS, batch.tokens, SIZE)
    first = slice(0, len(rows[batch.samples[0]].prompt) + len(rows[batch.samples[0]].response) - 1)
    layout = {"blocks": batch.blocks, "output_places": batch.output_places}
    output, _ = attend(nn.Module(), queries, keys, values, None, **layout, scaling=1.0)  # type: ignore[arg-type]
    unpadded, _ = attend_unpadded(  # float32 goes to the blocks
        nn.Module(), queries, keys, values, None, **layout, segments=batch.segments, scaling=1.0
    )
    assert torch.equal(unpadded, output)
    output[:, first].sum().backward()
    assert values.grad is not None
    assert not values.grad[:, :, first.stop :].any()


def test_the_gpu_kernel_is_not_tried_on_the_cpu() -> None:
    assert not unpadded_serves(None, torch.device("cpu"))

import pytest
import torch
from vllm.lora.layers import LoRAMapping

from actors.rollout.cpu_lora import DenseLoRA

RANK, WIDTH, SLICES = 8, 16, (12, 4, 4)


@pytest.mark.parametrize(
    "adapters",
    [(1, 1, 1, 1), (1, 2, 1, 2), (0, 2, 2, 0), (0, 0, 0, 0), (2, 0, 1, 1)],
    ids=["one adapter", "interleaved", "with base rows", "base only", "all three"],
)
def test_every_row_gets_its_own_adapter(adapters: tuple[int, ...]) -> None:
    """Slot 0 holds adapter 2 and slot 1 adapter 1; id 0 is the base model. Fused projection with three slices."""
    torch.manual_seed(0)
    wrapper = DenseLoRA(max_num_batched_tokens=8, max_batches=8, device="cpu")
    wrapper.update_metadata(LoRAMapping(adapters, adapters, is_prefill=True), [2, 1], 2, 100)
    x = torch.randn(len(adapters), WIDTH)
    a = tuple(torch.randn(2, 1, RANK, WIDTH) for _ in SLICES)
    b = tuple(torch.randn(2, 1, width, RANK) for width in SLICES)
    y = torch.randn(len(adapters), sum(SLICES))

    expected = y.clone()
    for row, adapter in enumerate(adapters):
        if adapter:
            slot = [2, 1].index(adapter)
            deltas = [b_[slot, 0] @ (a_[slot, 0] @ x[row]) for a_, b_ in zip(a, b, strict=True)]
            expected[row] += 0.5 * torch.cat(deltas)

    wrapper.add_lora_linear(y, x, a, b, 0.5, SLICES)
    torch.testing.assert_close(y, expected)


def test_rows_follow_the_next_batch() -> None:
    """A batch of one adapter after a mixed one must not be served with the old rows."""
    wrapper = DenseLoRA(max_num_batched_tokens=8, max_batches=8, device="cpu")
    a, b = (torch.ones(2, 1, RANK, WIDTH),), (torch.ones(2, 1, 4, RANK),)
    wrapper.update_metadata(LoRAMapping((1, 0), (1, 0), is_prefill=True), [1, 2], 2, 100)
    wrapper.update_metadata(LoRAMapping((2, 2), (2, 2), is_prefill=True), [1, 2], 2, 100)
    y = torch.zeros(2, 4)
    wrapper.add_lora_linear(y, torch.ones(2, WIDTH), a, b, 1.0, (4,))
    assert torch.equal(y, torch.full((2, 4), float(RANK * WIDTH)))

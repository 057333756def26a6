"""Ranks against vLLM's own."""

import pytest
import torch
from vllm.platforms import current_platform

from actors.rollout.cpu_ranks import count_at_least

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="on a card vLLM's way is used")


@pytest.mark.parametrize("shape", [(1, 7), (3, 49152), (2, 262144)])
def test_they_are_those_that_vllm_counts(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).log_softmax(-1)
    x[:, 2] = -torch.inf  # cut off by top-p
    x[0] = x[0, 0]  # all alike
    values = x[:, :1]
    found = count_at_least(x, values)
    assert found.dtype == torch.int64
    assert found.tolist() == (x >= values).sum(-1).tolist()
    assert found[0] == shape[1]


def test_vllm_uses_them() -> None:
    from vllm.plugins import load_general_plugins
    from vllm.v1.sample import sampler

    load_general_plugins()
    assert sampler.batched_count_greater_than is count_at_least

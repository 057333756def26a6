"""The plan's GPU memory of a learner against passes at full size, on tensors without content."""

import pytest

from tests.learner.full_size import rows


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "rank"), [("llama", 8), ("qwen3", 256)])  # without and with norms of heads
def test_a_peak_is_as_planned(recipe: str, rank: int) -> None:
    (row,) = rows((recipe,), (rank,))
    assert 0.97 < row["ratio"] < 1.05, row

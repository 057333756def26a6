"""The plan's GPU memory of a learner against passes at full size, on tensors without content."""

import pytest

from tests.learner.full_size import rows


@pytest.mark.slow
def test_all_peaks_are_as_planned() -> None:
    for row in rows():
        print(row)
        assert 0.97 < row["ratio"] < 1.05, row


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["llama", "qwen3"])  # without and with norms of heads
def test_a_peak_is_as_planned(recipe: str) -> None:
    fused, plain = rows((recipe,), (8,))
    assert (fused["fused"], plain["fused"]) == (True, False)
    assert fused["peak"] < 0.9 * plain["peak"]
    for row in (fused, plain):
        assert 0.97 < row["ratio"] < 1.05, row

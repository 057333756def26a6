"""The plan's memory of a learner on a card against passes at full size, on tensors without content."""

import pytest

from tests.learner.full_size import rows


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_peaks_at_full_size_are_what_is_planned() -> None:
    for row in rows():
        print(row)
        assert 1.0 - (0.10 if row["fused"] else 0.15) < row["ratio"] < 1.1, row  # plain norms of heads: Qwen3


def test_a_peak_of_one_recipe_is_what_is_planned() -> None:
    fused, plain = rows(("llama",), (8,))
    assert (fused["fused"], plain["fused"]) == (True, False)
    assert fused["peak"] < 0.9 * plain["peak"]
    for row in (fused, plain):
        assert 0.95 < row["ratio"] < 1.05, row

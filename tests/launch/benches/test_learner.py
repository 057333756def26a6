import pytest

from launch.benches.learner import Case, batch, measure


def test_work_is_mixed_and_as_long_as_asked() -> None:
    case = Case("", 8, 2, 8, 512)
    lengths = [len(g.problem.prompt_ids) + len(s.token_ids) for g in batch(case).groups for s in g.samples]
    assert max(lengths) == 512
    assert min(lengths) < 256


@pytest.mark.slow
def test_both_sides_run() -> None:
    case = Case("", 8, 1, 2, 256)
    for side in ("ours", "plain"):
        found = measure(side, case)
        assert found["tokens_per_second"] > 0
        assert found["peak_memory"] >= 0

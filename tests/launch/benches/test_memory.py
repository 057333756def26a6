import pytest

from launch.benches import memory


@pytest.mark.slow
def test_real_processes_are_measured() -> None:
    found = memory.measure(memory.Case(rank=8, response=24))
    assert found.keys() == {"engine_gib", "learner_gib", "cache_tokens"}
    for measured, planned in found.values():
        assert planned / 2 < measured < planned * 2

from hypothesis import given
from hypothesis import strategies as st

from actors.placement import MOST_REWARD_WORKERS, place


def test_two_cores_are_not_shared() -> None:
    placement = place((0, 1), 0)
    assert placement.device == "cpu"
    assert [share.cores for share in placement.rollouts] == [(0,)]
    assert placement.learner.cores == (1,)
    assert placement.reward_workers == 1


def test_one_core_carries_both() -> None:
    placement = place((5,), 0)
    assert placement.rollouts[0].cores == placement.learner.cores == (5,)


@given(st.sets(st.integers(0, 300), min_size=2, max_size=128))
def test_cpu_actors_have_cores_of_their_own(ids: set[int]) -> None:
    cores = tuple(sorted(ids))
    placement = place(cores, 0)
    engine, learner = placement.rollouts[0].cores, placement.learner.cores
    assert engine
    assert not set(engine) & set(learner)
    assert set(engine) | set(learner) <= ids
    assert len(learner) - len(engine) in (0, 1)
    assert 8 * (len(cores) - len(engine) - len(learner)) <= len(cores)


def test_one_card_is_shared_with_room_to_spare() -> None:
    placement = place(tuple(range(16)), 1)
    rollout, learner = placement.rollouts[0], placement.learner
    assert placement.device == "cuda"
    assert rollout.gpus + learner.gpus <= 1
    assert rollout.memory + learner.memory < 1
    assert (rollout.memory, learner.memory) == (rollout.gpus, learner.gpus)
    assert rollout.cores == learner.cores == ()
    assert learner.threads == 4


@given(st.integers(2, 64), st.integers(1, 256))
def test_several_cards_are_whole(gpus: int, cores: int) -> None:
    placement = place(tuple(range(cores)), gpus)
    shares = (*placement.rollouts, placement.learner)
    assert len(shares) == gpus
    assert {share.gpus for share in shares} == {1.0}
    assert all(share.memory < 1 for share in shares)
    assert 1 <= placement.reward_workers <= MOST_REWARD_WORKERS

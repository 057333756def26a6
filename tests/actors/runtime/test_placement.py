import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.runtime.placement import MOST_REWARD_WORKERS, Node, most_actors, place
from microbudget_rl.launch.sharing import divide


@pytest.mark.parametrize(
    ("cores", "ranks", "rollouts", "learners"),
    [((0, 1), 1, [(0,)], [(1,)]), ((0, 1), 2, [(0,)], [(0,), (1,)]), ((5,), 1, [(5,)], [(5,)])],
)
def test_few_cores_are_shared_only_where_they_must_be(
    cores: tuple[int, ...], ranks: int, rollouts: list[tuple[int, ...]], learners: list[tuple[int, ...]]
):
    placement = place(cores, 0, ranks)
    assert (placement.device, placement.reward_workers) == ("cpu", 1)
    assert [share.cores for share in placement.rollouts] == rollouts
    assert [share.cores for share in placement.learners] == learners


core_ids = st.sets(st.integers(0, 300), min_size=2, max_size=128).map(lambda ids: tuple(sorted(ids)))


@given(core_ids, st.data())
def test_ranks_have_equally_many_cores_of_their_own(cores: tuple[int, ...], data: st.DataObject):
    ranks = data.draw(st.integers(1, most_actors(cores, 0)))
    placement = place(cores, 0, ranks)
    learners = [core for share in placement.learners for core in share.cores]
    engine = placement.rollouts[0].cores
    assert len(placement.learners) == ranks
    assert len({len(share.cores) for share in placement.learners}) == 1
    assert len(set(learners)) == len(learners) > 0
    assert engine
    assert set(learners) | set(engine) <= set(cores)
    if ranks == 1 or (len(cores) >= 8 and ranks <= len(cores) // 4):
        assert not set(learners) & set(engine)
    if ranks == 1:
        assert len(learners) - len(engine) in (0, 1)
        assert 8 * (len(cores) - len(engine) - len(learners)) <= len(cores)


@given(core_ids, st.data())
def test_engines_on_a_cpu_divide_its_cores_while_there_are_enough(cores: tuple[int, ...], data: st.DataObject):
    engines = data.draw(st.integers(1, most_actors(cores, 0)))
    placement = place(cores, 0, engines=engines)
    bound = Counter(core for share in placement.rollouts for core in share.cores)
    assert len(placement.rollouts) == engines
    assert all(share.cores and share.threads == len(share.cores) for share in placement.rollouts)
    assert max(bound.values()) - min(bound.values()) <= 1
    if engines <= len(cores) // 4:
        assert set(bound.values()) == {1}
        assert not set(bound) & set(placement.learners[0].cores)


@given(st.integers(2, 64), st.integers(1, 256), st.data())
def test_engines_share_gpus_with_the_learner_once_there_are_no_others(gpus: int, cores: int, data: st.DataObject):
    engines = data.draw(st.none() | st.integers(1, most_actors((), gpus)))
    ranks = data.draw(st.integers(1, most_actors((), gpus)))
    placement = divide(place(tuple(range(cores)), gpus, ranks, engines), 0.3, 0.5)
    shares = (*placement.rollouts, *placement.learners)
    assert len(placement.learners) == ranks
    assert len(placement.rollouts) == (engines or max(1, gpus - ranks))
    assert placement.gpus == min(len(shares), gpus)
    beside = [share.beside for share in placement.rollouts if share.beside is not None]
    assert beside == list(range(len(shares) - placement.gpus))
    of_learners = [0.54] * len(beside) + [1.0] * (ranks - len(beside))
    assert [share.gpus for share in placement.learners] == of_learners
    assert {share.gpus for share in placement.rollouts} <= {1.0, 0.41}
    assert all(share.threads >= 1 and share.memory < 1 for share in shares)
    assert 1 <= placement.reward_workers <= MOST_REWARD_WORKERS


nodes_with_gpus = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=6).map(
    lambda sizes: [Node(f"n{i}", tuple(range(cores)), gpus) for i, (cores, gpus) in enumerate(sizes)]
)


@given(nodes_with_gpus, st.data())
def test_nodes_with_gpus_can_hold_what_is_placed(nodes: list[Node], data: st.DataObject):
    """An actor for each GPU needs no more cores than its node has for it; nodes without a GPU verify."""
    gpus = sum(node.gpus for node in nodes)
    if not gpus:
        return
    ranks = data.draw(st.integers(1, most_actors((), gpus)))
    engines = data.draw(st.sampled_from([number for number in (gpus - ranks, gpus) if number]))
    placement = place(nodes[0].cores, gpus, ranks, engines, nodes)
    shares = (*placement.rollouts, *placement.learners)
    assert placement.gpus == gpus
    room = min(len(node.cores) // node.gpus for node in nodes if node.gpus)
    taken = max(share.threads for share in shares)
    if placement.shared_gpus:
        taken = placement.rollouts[-1].threads + placement.learners[0].threads
    assert taken <= max(room, 2 if placement.shared_gpus else 1)
    assert placement.reward_nodes == tuple(node.id for node in nodes if not node.gpus)
    assert placement.learners[0].node == (nodes[0].id if nodes[0].gpus else "")
    assert all(not share.node for share in (*placement.rollouts, *placement.learners[1:]))


@given(st.lists(core_ids, min_size=2, max_size=5), st.data())
def test_of_nodes_without_a_gpu_the_first_learns_and_the_others_generate(
    cores: list[tuple[int, ...]], data: st.DataObject
):
    nodes = [Node(f"n{number}", ids, 0) for number, ids in enumerate(cores)]
    engines = data.draw(st.none() | st.integers(1, 8))
    ranks = data.draw(st.integers(1, most_actors(cores[0], 0)))
    placement = place(cores[0], 0, ranks, engines, nodes)
    assert {share.node for share in placement.learners} == {"n0"}
    assert len({share.threads for share in placement.learners}) == 1
    assert len(placement.rollouts) == (engines or len(nodes) - 1)
    assert "n0" not in {share.node for share in placement.rollouts}
    for node in nodes[1:]:
        bound = [core for share in placement.rollouts if share.node == node.id for core in share.cores]
        assert set(bound) <= set(node.cores)
        assert len(set(bound)) == len(bound) or len(bound) > len(node.cores)


def test_an_actor_is_bound_before_openmp_looks_how_to_wait():
    """libgomp reads its settings once, when it is loaded."""
    program = (
        "import os; from microbudget_rl.actors.rollout import vllm_engine; from microbudget_rl.learner import actor; "
        "from microbudget_rl.actors.runtime.placement import Share; "
        "Share(cores=tuple(os.sched_getaffinity(0))).bind(); "
        "print('libgomp' in open('/proc/self/maps').read(), 'GOMP_SPINCOUNT' in os.environ)"
    )
    unset = ("GOMP_SPINCOUNT", "LD_PRELOAD")  # the latter is set by an engine in this process
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["False", "True"]

from dataclasses import replace

import pytest

from actors.runtime.placement import Node
from launch.hardware.machine import GIB
from tests.launch.plan.plans import CPU, entry, estimated, machine, plan, shown


def test_sizes_at_rank_256_follow_the_shape() -> None:
    made = plan("r256_instruct", machine("A40"))
    trained = 256 * 1_154_048
    assert entry(made, "learner: optimizer") == (16 + 2) * trained  # in host memory
    assert entry(made, "engine: adapter slots") == 2 * trained * 2
    assert entry(made, "engine: KV cache, at least") == 8 * 4096 * 28_672
    assert entry(made, "engine: base weights") == entry(made, "learner: base weights")
    assert entry(made, "engine: base weights") == pytest.approx(3.09e9, rel=0.01)
    low = plan("r8_instruct", machine("A40"))
    assert all(low.needed(place) < made.needed(place) for place in low.available)
    assert estimated(low).update_s < estimated(made).update_s


def test_a_higher_staleness_takes_slots_and_saves_waiting() -> None:
    one, two = (plan("r256_instruct", machine("A40"), f"learner.max_staleness={staleness}") for staleness in (1, 2))
    assert entry(two, "engine: adapter slots") == 1.5 * entry(one, "engine: adapter slots")
    assert entry(two, "engine: adapters as loaded") == 1.5 * entry(one, "engine: adapters as loaded")
    assert estimated(two).update_s < estimated(one).update_s


def test_adapter_slots_are_as_large_as_vllm_pads_them() -> None:
    slots = [entry(plan("quickstart", CPU, f"lora.rank={rank}"), "engine: adapter slots") for rank in (33, 64)]
    assert slots[0] == slots[1]


def test_cache_takes_the_memory_that_the_share_has_left() -> None:
    for gpu in ("A40", "A100-80"):
        made = plan("r8_instruct", machine(gpu))
        fixed = made.needed("rollout GPU") - entry(made, "engine: KV cache, at least")
        assert made.sequences == (made.available["rollout GPU"] - fixed) // (4096 * 28_672)  # type: ignore[operator]


def test_every_engine_of_the_host_counts() -> None:
    one, two = (plan("quickstart", CPU, f"rollout.actors={actors}") for actors in (1, 2))
    for what in ("base weights", "adapter slots", "adapters as loaded", "KV cache", "processes"):
        assert entry(two, f"engine: {what}") == 2 * entry(one, f"engine: {what}")
    one, four = (plan("r256_instruct", machine("A40", gpus), "learner.world_size=1") for gpus in (2, 5))
    assert entry(four, "engine: adapters as loaded") == 4 * entry(one, "engine: adapters as loaded")
    assert entry(four, "engine: base weights") == entry(one, "engine: base weights")


def test_a_clusters_first_host_holds_only_its_own_processes() -> None:
    nodes = tuple(Node(str(number), tuple(range(16)), 1) for number in range(64))
    one = plan("r8_instruct", machine("A40", 64), "learner.world_size=2")
    spread = plan("r8_instruct", replace(machine("A40", 64), nodes=nodes), "learner.world_size=2")
    assert one.overfull == ["host"]
    assert entry(spread, "learner: process") == entry(one, "learner: process") / 2
    assert not any(memory.what == "engine: processes" for memory in spread.memory)
    pair = tuple(Node(str(number), (0, 1), 0) for number in range(2))
    away = plan("quickstart", replace(CPU, nodes=pair))
    assert not any(memory.what.startswith("engine:") for memory in away.memory)
    assert away.sequences == plan("quickstart", CPU).sequences


def test_every_node_of_a_cluster_holds_its_own_processes() -> None:
    """The second of three nodes has a learner process and an engine, the third two engines, the last nothing to do."""
    gpus = {"home": 2, "second": 2, "third": 2, "bare": 0}
    nodes = tuple(Node(name, tuple(range(16)), count, memory=64 * GIB) for name, count in gpus.items())
    cluster = replace(machine("A40", 6), nodes=nodes)
    made = plan("r256_instruct", cluster, "learner.world_size=3")
    one, three = (plan("r256_instruct", machine("A40", gpus), f"learner.world_size={gpus - 1}") for gpus in (2, 4))
    process, store = (entry(one, name) for name in ("learner: process", "object store"))
    adapter = 2 * 256 * 1_154_048
    engine = sum(entry(one, f"engine: {what}") for what in ("processes", "adapters as loaded"))
    assert entry(made, "learner: process") == 2 * process
    assert made.needed("node second") == pytest.approx(
        engine + process + entry(three, "learner: optimizer") / 3 + store + 2 * adapter
    )
    assert made.needed("node third") == pytest.approx(2 * engine + store + 2 * adapter)
    assert list(made.available) == ["rollout GPU", "learner GPU", "host", "node second", "node third"]
    assert made.fits
    small = replace(cluster, nodes=tuple(replace(node, memory=8 * GIB) for node in nodes))
    assert plan("r256_instruct", small, "learner.world_size=3").overfull == ["node second", "node third"]


def test_ranks_on_a_cpu_hold_a_model_each_and_one_optimizer() -> None:
    one, two = (plan("quickstart", CPU, f"learner.world_size={ranks}") for ranks in (1, 2))
    for what, factor in (("base weights", 2), ("activations", 2), ("optimizer", 1)):
        assert entry(two, f"learner: {what}") == factor * entry(one, f"learner: {what}")
    assert "2 × core 0; 1" in shown(two)


def test_the_optimizer_is_in_host_memory_unless_told_otherwise() -> None:
    for overrides, place in (((), "host"), (("learner.offload=none",), "learner GPU")):
        memory = plan("r8_instruct", machine("A40"), *overrides).memory
        assert [m.place for m in memory if m.what == "learner: optimizer"] == [place]

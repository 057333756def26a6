"""A whole run on a Ray cluster that was there before it: two nodes of this machine, each with a core of its own."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from launch.machine import detect
from tests.e2e.conftest import read_rows, read_summary


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    cores = sorted(os.sched_getaffinity(0))
    if detect().gpus or len(cores) < 2:
        pytest.skip("for a machine with two cores and no card")
    os.sched_setaffinity(0, cores[:1])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    os.sched_setaffinity(0, cores[1:2])
    cluster.add_node(num_cpus=1)
    os.sched_setaffinity(0, cores)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_run_joins_a_cluster_and_leaves_it_as_it_was(
    address: str, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    folder = start.folder / "cluster"  # type: ignore[attr-defined]
    run = start("cluster", "budget.minutes=10", "budget.updates=3")
    output, _ = run.communicate()
    assert run.returncode == 0, output
    assert "2 nodes" in output
    assert all(f"core {core}\n" in re.sub(" +\n", "\n", output) for core in sorted(os.sched_getaffinity(0))[:2])
    assert len(read_rows(folder)) == 3
    assert read_summary(folder)["status"] == "completed"
    ray.init(address=address, log_to_driver=False)
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert ray.available_resources()["CPU"] == 2

    holder = ray.remote(num_cpus=1)(_Holder).remote()
    ray.get(holder.alive.remote())
    refused = start("refused")
    output, _ = refused.communicate()
    assert refused.returncode == 2, output
    assert "has 1 of 2 cores free and the run needs 2" in output


class _Holder:
    def alive(self) -> None: ...

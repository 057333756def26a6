"""`python -m tests.e2e.cluster_host`: two Ray nodes of this machine, each with a core of its own, until its input ends.

In a process of its own, since Ray reads RAY_AUTH_MODE once. It prints the cluster's address, then answers each line of
its input: `free` with the nodes alive and the cores free, `hold` once it has taken a core.
"""

import json
import os
import sys

import ray
from ray.cluster_utils import Cluster


class Holder:
    def alive(self) -> None: ...


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    os.sched_setaffinity(0, cores[1:2])
    cluster.add_node(num_cpus=1)
    os.sched_setaffinity(0, cores)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    holders = []
    for line in sys.stdin:
        if not ray.is_initialized():
            ray.init(address=cluster.address, log_to_driver=False)
        if line.strip() == "hold":
            holders.append(ray.remote(num_cpus=1)(Holder).remote())
            ray.get(holders[-1].alive.remote())
        alive = sum(node["Alive"] for node in ray.nodes())
        print(json.dumps([alive, ray.available_resources().get("CPU", 0)]), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()

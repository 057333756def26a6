"""A running Ray cluster at RAY_ADDRESS: joins it, describes it as one machine, and checks that enough of it is free."""

import contextlib
import logging
import os
import re
import time
from dataclasses import dataclass, replace
from typing import Any

import grpc
import psutil
import ray
from ray._private import services
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from microbudget_rl.actors.runtime.placement import Node, Placement
from microbudget_rl.actors.runtime.process import software_versions
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import IN_CLONE, PACKAGE, ROOT
from microbudget_rl.conf.schema import Config
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.hardware.machine import Machine, check_build, detect

NOT_SENT = ["runs", ".venv*", ".git", ".*_cache", "__pycache__", ".hypothesis", "build", "tests"]
"""Parts of a folder that are not sent to the nodes."""

JOIN_S, SURVEY_S = 10.0, 300.0
"""Seconds that a cluster has to answer, for which Ray itself tries for two minutes and then ends the process; and that
all nodes have to receive the project and describe themselves."""


@dataclass(frozen=True)
class Found:
    """A node's description of itself. versions: without the names of builds."""

    machine: Machine
    versions: dict[str, str]


def join(address: str, config: Config) -> Any:
    """Connect to the cluster of this machine, and send it the project. Return Ray's context."""
    if address != "auto" and not re.fullmatch(r"[^/]+:\d+", address):
        raise BadInput(f"RAY_ADDRESS={address}: give the HOST:PORT of a cluster that has this machine, or unset it")
    try:
        check_answers(address, services.canonicalize_bootstrap_address(address) or "")
        context = ray.init(
            address=address,
            namespace=config.run.name,
            runtime_env=sent(),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        said = str(error).strip().splitlines()[0]
        raise BadInput(
            f"RAY_ADDRESS={address}: the cluster cannot be joined ({said}); start one with ray start, or unset it"
        ) from error
    return context


def sent() -> dict[str, Any]:
    """Return what Ray sends to the nodes: a clone, which may have a user's functions, or else the package."""
    what = {"working_dir": str(ROOT)} if IN_CLONE else {"py_modules": [str(PACKAGE)]}
    return {**what, "excludes": NOT_SENT}


def check_answers(address: str, place: str) -> None:
    """Raise BadInput if nothing accepts a gRPC connection, as Ray's servers do. place: HOST:PORT of the address."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    with grpc.insecure_channel(place, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(JOIN_S)
        except grpc.FutureTimeoutError:
            fault = f"no Ray answers at {place} within {JOIN_S:.0f} s; start one with bash launch/node.sh"
            if user := user_of(place.rpartition(":")[2]):
                fault = f"the Ray at {place} serves {user} alone; wait for its end"
            raise BadInput(f"RAY_ADDRESS={address}: {fault}, or unset RAY_ADDRESS") from None


def user_of(port: str) -> str:
    """Name the process on this machine whose own Ray, on the loopback interface, has a port; empty if there is none."""
    for server in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = server.name() == "raylet" and f"--gcs-address=127.0.0.1:{port}" in server.cmdline()
            if ours and (user := server.parent()):
                return f"process {user.pid} ({' '.join(user.cmdline())})"
    return ""


class Scout:
    """Describes its node. It is an actor: into a cluster that does not authenticate, Ray lets a process that does join
    and run tasks, but kills every actor that it starts.
    """

    def look(self, device: str) -> Found:
        versions = {name: version.partition("+")[0] for name, version in software_versions().items()}
        return Found(detect(device), versions)


def survey(config: Config) -> Machine:
    """Describe the cluster as one machine, this node first. Raises BadInput if the nodes' software does not fit."""
    here = ray.get_runtime_context().get_node_id()
    resources = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    scout: Any = ray.remote(num_cpus=0)(Scout)
    scouts = {
        node: scout.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in sorted(resources, key=lambda node: node != here)
    }
    answers = {node: each.look.remote(config.device) for node, each in scouts.items()}
    end = time.monotonic() + SURVEY_S
    by_node: dict[str, Found] = {
        node: hear(f"node {node[:8]} of the Ray cluster", answer, max(end - time.monotonic(), 0.0))
        for node, answer in answers.items()
    }
    check_alike(by_node[here].versions, by_node)
    whole = combine(by_node, resources)
    for each in by_node.values():
        if each.machine.gpus or not whole.gpus:
            check_build(config, each.machine, each.versions)
    return whole


def hear(node: str, reference: "ray.ObjectRef[Any]", timeout_s: float) -> Any:
    """Return a node's answer. Raises BadInput if it gives none in time or raises BadInput itself; other errors pass."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, BadInput):
            raise BadInput(f"{node}: {error.cause}") from error
        raise
    except RayActorError as error:
        raise BadInput(
            f"{node} has lost its actor: the cluster was not started with RAY_AUTH_MODE=token, so that everyone who"
            " reaches its ports can run code on it, or the node has failed; start it with bash launch/node.sh"
        ) from error
    except RayError as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadInput(f"{node} did not answer ({said}): ray status shows whether it is there") from error


def combine(by_node: dict[str, Found], resources: dict[str, dict[str, float]]) -> Machine:
    """Describe the nodes, this one first, as one machine. Count only the cores and GPUs that Ray may use."""
    nodes, cards, with_gpus = list[Node](), list[Gpu](), list[Machine]()
    for name, each in by_node.items():
        cores = each.machine.cores[: max(1, int(resources[name].get("CPU", 0)))]
        gpus = min(each.machine.gpus, int(resources[name].get("GPU", 0)))
        nodes.append(node := Node(name, cores, gpus))
        cards += [replace(gpu, name=f"{gpu.name} of {node.name}") for gpu in each.machine.cards[:gpus]]
        with_gpus += [each.machine] * (gpus > 0)
    home = by_node[nodes[0].id].machine
    smallest = min(with_gpus, key=lambda machine: machine.gpu_memory, default=home)
    whole = replace(smallest, cores=nodes[0].cores, host_memory=home.host_memory, gpus=len(cards), mps=False, ipc=False)
    return replace(whole, nodes=tuple(nodes), cards=tuple(cards))


def check_free(placement: Placement) -> None:
    """Raise BadInput if the cluster's free GPUs or cores are too few for a placement."""
    free, total = ray.available_resources(), ray.cluster_resources()
    threads = sum(share.threads for share in (*placement.rollouts, *placement.learners))
    for name, what, needs in (("GPU", "GPUs", placement.gpus), ("CPU", "cores", threads)):
        if needs > free.get(name, 0):
            raise BadInput(
                f"the Ray cluster has {free.get(name, 0):g} of {total.get(name, 0):g} {what} free and the run needs"
                f" {needs:g}: wait for its other runs, or give smaller rollout.actors and learner.world_size"
            )


def check_alike(here: dict[str, str], by_node: dict[str, Found]) -> None:
    """Raise BadInput if a node has another version of a package than this one."""
    for node, each in by_node.items():
        for name, version in each.versions.items():
            if here.get(name, version) != version:
                other = f"node {node[:8]} of the Ray cluster has {name} {version}, this one {here[name]}"
                raise BadInput(f"{other}: install the same on all with bash launch/setup.sh")

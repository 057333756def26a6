"""Requests to the ports of a run without Ray's token, and the responses to them."""

import http.client
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import grpc
import ray

PATHS = ("/api/jobs/", "/api/version", "/nodes", "/logs", "/get_or_create_runtime_env")
"""Paths of the dashboard, which accepts jobs, and of Ray's agents."""

OBJECT_MANAGER = ("/ray.rpc.ObjectManagerService/Push", "/ray.rpc.ObjectManagerService/Pull")
TIMEOUT_S = 4.0

METRICS = {"metrics", "405"}
"""Responses of a port that serves metrics to Prometheus and accepts no posts."""

SILENCE = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""Responses of a port that does not speak gRPC."""


@cache
def methods() -> list[str]:
    """Names of all gRPC methods of Ray's processes."""
    generated = (Path(ray.__file__).parent / "core" / "generated").glob("*_pb2_grpc.py")
    return sorted({*OBJECT_MANAGER, *re.findall(r"'(/ray\.rpc\.[\w./]+)'", "".join(map(Path.read_text, generated)))})


def answers(places: Iterable[str]) -> dict[str, set[str]]:
    """The responses at each of some addresses, which are all asked at the same time."""
    places = list(places)
    with ThreadPoolExecutor(len(places)) as threads:
        return dict(zip(places, threads.map(lambda place: ask(int(place.rpartition(":")[2])), places), strict=True))


def ask(port: int) -> set[str]:
    """All responses of a port: statuses of HTTP or else of gRPC, and `metrics`."""
    try:
        return {over_http(port, path) for path in PATHS}
    except (http.client.HTTPException, OSError):
        return over_grpc(port)


def over_http(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("POST" if path == "/api/jobs/" else "GET", path)
    answer = connection.getresponse()
    return "metrics" if answer.read(6) == b"# HELP" else str(answer.status)


def over_grpc(port: int) -> set[str]:
    found: set[str] = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in methods():
            try:
                channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                found.add(f"OK {method}")
            except grpc.RpcError as error:
                found.add(error.code().name)
            if found & SILENCE:
                break
    return found

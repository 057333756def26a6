"""What somebody without Ray's token is answered on the ports of a run."""

import http.client
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import grpc
import ray

PATHS = ("/api/jobs/", "/api/version", "/nodes", "/logs", "/get_or_create_runtime_env")
"""Of the dashboard, where jobs are submitted, and of Ray's agents."""

OBJECT_MANAGER = ("/ray.rpc.ObjectManagerService/Push", "/ray.rpc.ObjectManagerService/Pull")
ANSWER_S = 2.0

METRICS = {"metrics", "405"}
"""Of a port where Prometheus reads and nobody posts."""

SILENCE = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""Of a port that does not speak gRPC."""


@cache
def methods() -> list[str]:
    """Names of all that Ray's processes can be asked."""
    generated = Path(ray.__file__).parent / "core" / "generated"
    named = [re.findall(r"'(/ray\.rpc\.[\w./]+)'", file.read_text()) for file in generated.glob("*_pb2_grpc.py")]
    return sorted({*OBJECT_MANAGER, *(name for names in named for name in names)})


def answers(places: Iterable[str]) -> dict[str, set[str]]:
    """What is answered at each of some addresses, which are asked all at once."""
    places = list(places)
    with ThreadPoolExecutor(len(places)) as strangers:
        heard = strangers.map(lambda place: heard_from(int(place.rpartition(":")[2])), places)
        return dict(zip(places, heard, strict=True))


def heard_from(port: int) -> set[str]:
    """All that a port answers to a stranger: statuses of HTTP or else of gRPC, and `metrics`."""
    try:
        return {over_http(port, path) for path in PATHS}
    except (http.client.HTTPException, OSError):
        return over_grpc(port)


def over_http(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    connection.request("POST" if path == "/api/jobs/" else "GET", path)
    answer = connection.getresponse()
    return "metrics" if answer.read(6) == b"# HELP" else str(answer.status)


def over_grpc(port: int) -> set[str]:
    found = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in methods():
            try:
                channel.unary_unary(method)(b"", timeout=ANSWER_S)
                found.add(f"OK {method}")
            except grpc.RpcError as error:
                found.add(error.code().name)
            if found & SILENCE:
                break
    return found

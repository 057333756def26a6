"""A stand-in for the Hugging Face Hub: the part of its HTTP API that a download uses."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.http_server import Answer, in_full, serving

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What the stand-in offers, and what it was asked for.

    models: files by repository, commit and path, the newest commit last. tags: commits. asked: paths of all requests.
    nonsense: end of a path that gets a response of no use.
    """

    url: str = ""
    models: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    nonsense: str = "none"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of loopback that accepts TOKEN."""
    hub = Hub()

    def respond(path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        hub.asked.append(path)
        if path.endswith(hub.nonsense):
            return in_full(b"<html>")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return in_full({"error": "Invalid username or password."}, 401)
        return carry_out(hub, path)

    with serving(respond) as hub.url:
        yield hub


def carry_out(hub: Hub, path: str) -> Answer:
    """Do what a request asks for."""
    if "/resolve/" in path:
        name, _, place = path[1:].partition("/resolve/")
        commit, _, file = place.partition("/")
        content = hub.models[name][commit][file]
        digest = hashlib.sha1(content).hexdigest()
        return in_full(content, **{"X-Repo-Commit": commit, "ETag": f'"{digest}"'})
    assert path.startswith("/api/models/"), path
    owner, model, *rest = path.removeprefix("/api/models/").split("/")
    name = f"{owner}/{model}"
    if name in hub.models:
        commits, (kind, revision) = hub.models[name], rest or ("revision", "main")
        commit = {"main": [*commits][-1], **hub.tags}.get(revision, revision)
        if commit not in commits:
            return in_full({"error": "Invalid rev id"}, 404, **{"X-Error-Code": "RevisionNotFound"})
        if kind == "revision":
            return in_full({"id": name, "sha": commit, "siblings": []})
        tree = ({"path": path, "size": len(content)} for path, content in commits[commit].items())
        return in_full([{"type": "file", "oid": "0" * 40, **file} for file in tree])
    return in_full({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})

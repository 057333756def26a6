"""A stand-in for the Hugging Face Hub: the part of its HTTP API that creates a repository and commits files to it, and
the part that a download uses.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.http_server import Answer, in_full, serving

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What the stand-in received.

    files: by repository and path. models: files by repository, commit and path, the newest commit last. tags: commits.
    asked: paths of all requests. created: bodies of requests to `create`.
    silent, nonsense: ends of paths that get no response, or one of no use.
    page: the answer to every request; None for its own.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    models: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    silent: str = "none"
    nonsense: str = "none"
    page: Answer | None = None


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of loopback that accepts TOKEN."""
    hub = Hub()

    def respond(path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        hub.asked.append(path)
        if path.endswith(hub.silent):
            threading.Event().wait()
        if path.endswith(hub.nonsense):
            return in_full(b"<html>")
        if hub.page is not None:
            return hub.page
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return in_full({"error": "Invalid username or password."}, 401)
        return carry_out(hub, path, body)

    with serving(respond) as hub.url:
        yield hub


def carry_out(hub: Hub, path: str, body: bytes) -> Answer:
    """Do what a request asks for."""
    asked = json.loads(body) if body[:1] == b"{" and b"\n" not in body.strip() else {}
    if path == "/api/whoami-v2":
        return in_full({"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}})
    if path == "/api/validate-yaml":
        return in_full({"errors": [], "warnings": []})
    if path == "/api/repos/create":
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        hub.created.append(asked)
        hub.files.setdefault(name, {".gitattributes": b""})
        return in_full({"url": f"{hub.url}/{name}", "name": name})
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
    if name not in hub.files:
        return in_full({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
    if rest[:1] == ["preupload"]:
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        return in_full({"files": [{**file, **modes} for file in asked["files"]]})
    if not rest:
        return in_full({"id": name, "sha": "0" * 40, "siblings": [{"rfilename": path} for path in hub.files[name]]})
    assert rest[:1] == ["commit"], path
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            hub.commits.append(value["summary"])
        elif line["key"] == "file":
            hub.files[name][value["path"]] = base64.b64decode(value["content"])
    return in_full({"commitUrl": f"{hub.url}/{name}/commit/1", "commitOid": "1" * 40, "success": True})

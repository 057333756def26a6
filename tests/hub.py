"""A stand-in for the Hugging Face Hub: the part of its HTTP API that creates a repository and commits files to it, and
the part that a download uses.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What the stand-in received.

    files: by repository and path. models: files by repository, commit and path, the newest commit last. tags: commits.
    asked: paths of all requests. created: bodies of requests to `create`.
    silent, nonsense: ends of paths that get no response, or one of no use.
    page: the content of a refusal of every request; None for none.
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
    page: Any = None
    closed: threading.Event = field(default_factory=threading.Event)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of loopback that accepts TOKEN."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path.endswith(hub.silent):
                hub.closed.wait(60)
            elif path.endswith(hub.nonsense):
                self.answer(200, "<html>")
            elif hub.page is not None:
                self.answer(507, hub.page)
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer(401, {"error": "Invalid username or password."})
            else:
                code, content, *headers = respond(hub, path, body)
                self.answer(code, content, *headers)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815  # as the library names them

        def answer(self, code: int, content: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            data = text.encode() if isinstance(text, str) else text
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.closed.set()
        server.shutdown()
        server.server_close()


def respond(hub: Hub, path: str, body: bytes) -> tuple[Any, ...]:
    """Status, content and headers of a response."""
    asked = json.loads(body) if body[:1] == b"{" and b"\n" not in body.strip() else {}
    if path == "/api/whoami-v2":
        return 200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path == "/api/repos/create":
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        hub.created.append(asked)
        hub.files.setdefault(name, {".gitattributes": b""})
        return 200, {"url": f"{hub.url}/{name}", "name": name}
    if "/resolve/" in path:
        name, _, place = path[1:].partition("/resolve/")
        commit, _, file = place.partition("/")
        content = hub.models[name][commit][file]
        return 200, content, (("X-Repo-Commit", commit), ("ETag", f'"{hashlib.sha1(content).hexdigest()}"'))
    assert path.startswith("/api/models/"), path
    owner, model, *rest = path.removeprefix("/api/models/").split("/")
    name = f"{owner}/{model}"
    if name in hub.models:
        commits, (kind, revision) = hub.models[name], rest or ("revision", "main")
        commit = {"main": [*commits][-1], **hub.tags}.get(revision, revision)
        if commit not in commits:
            return 404, {"error": "Invalid rev id"}, (("X-Error-Code", "RevisionNotFound"),)
        if kind == "revision":
            return 200, {"id": name, "sha": commit, "siblings": []}
        tree = ({"path": path, "size": len(content)} for path, content in commits[commit].items())
        return 200, [{"type": "file", "oid": "0" * 40, **file} for file in tree]
    if name not in hub.files:
        return 404, {"error": "Repository not found"}, (("X-Error-Code", "RepoNotFound"),)
    if rest[:1] == ["preupload"]:
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        return 200, {"files": [{**file, **modes} for file in asked["files"]]}
    if not rest:
        return 200, {"id": name, "sha": "0" * 40, "siblings": [{"rfilename": path} for path in hub.files[name]]}
    assert rest[:1] == ["commit"], path
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            hub.commits.append(value["summary"])
        elif line["key"] == "file":
            hub.files[name][value["path"]] = base64.b64decode(value["content"])
    return 200, {"commitUrl": f"{hub.url}/{name}/commit/1", "commitOid": "1" * 40, "success": True}

import asyncio
import json
from typing import Any

import httpx
import pytest

from launch.after.server_guard import KEY, MAX_BYTES, MOST_RESPONSES, MOST_SETTINGS, ServerGuard

HERE, OPEN = "http://127.0.0.1:8000", "http://10.0.0.5:8000"
"""Addresses of the server; the guard knows them by the socket, not by the request."""

CHAT = "/v1/chat/completions"
SECRET = "a secret"


async def respond(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the request's body, once all has come, and what is received after it."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await respond(send, body)


def ask(
    method: str, path: str, at: str = HERE, key: str = "", content: Any = None, app: Any = ok, **headers: str
) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ServerGuard(app)), base_url=at) as client:
            sent = ({"authorization": f"Bearer {key}"} if key else {}) | headers
            return await client.request(method, path, content=content, headers=sent)

    return asyncio.run(asked())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY, SECRET)
    return SECRET


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), ("POST", "/v1/load_lora_adapter"), ("POST", "/v1/models"), ("OPTIONS", CHAT)],
)
def test_paths_beside_the_openai_api_are_off(method: str, path: str, secret: str) -> None:
    assert ask(method, path).status_code == 401
    assert ask(method, path, key=secret).status_code == 404


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses"])
def test_api_asks_for_the_key(path: str, secret: str) -> None:
    refused = ask("POST", path, OPEN, content=b"{}")
    assert (refused.status_code, refused.headers["connection"]) == (401, "close")
    assert KEY in refused.json()["error"]["message"]
    for header, status in ((f"Basic {secret}", 401), (f"Bearer {secret}2", 401), (f"bearer {secret}", 200)):
        assert ask("POST", path, OPEN, content=b"{}", authorization=header).status_code == status
    assert ask("GET", "/health", OPEN).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("[::1]:9000", 200),
        ("rebound.example", 403),
        ("rebound.example@127.0.0.1:8000:1", 403),
        ("", 403),
    ],
)
def test_loopback_serves_its_own_names_only(host: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert ask("GET", "/v1/models", host=host).status_code == status
    monkeypatch.setenv(KEY, SECRET)
    assert ask("GET", "/v1/models", OPEN, key=SECRET, host=host).status_code == 200


async def parts() -> Any:
    yield b"{}"


@pytest.mark.parametrize(
    ("content", "status"), [(b"{}".ljust(MAX_BYTES), 200), (b"{}".ljust(MAX_BYTES + 1), 413), (parts, 413)]
)
def test_bodies_are_limited_by_their_stated_length(content: Any, status: int, secret: str) -> None:
    body = content if isinstance(content, bytes) else content()
    assert ask("POST", CHAT, key=secret, content=body).status_code == status


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
POINTS = {"$defs": {"p": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/p"}, "y": {"$ref": "#/$defs/p"}}}


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": [{"role": "user", "content": "x" * 2 * MOST_SETTINGS}], "n": MOST_RESPONSES},
        {"prompt": list(range(20_000)), "n": None},
        {"logit_bias": {str(token): 1 for token in range(1000)}},
        {"input": "x", "text": {"format": {"type": "json_object"}}},
        {"response_format": None, "text": None},
        schema(TREE),
        schema(POINTS),
    ],
)
def test_request_reaches_the_server_as_it_was_sent(request_: dict[str, Any]) -> None:
    content = json.dumps(request_).encode()
    assert ask("POST", CHAT, content=content, app=echo).content == content


@pytest.mark.parametrize(
    "request_",
    [
        {"n": MOST_RESPONSES + 1},
        {"n": "200"},
        {"n": 2, "prompt": ["x"] * (MOST_RESPONSES // 2 + 1)},
        {"logit_bias": {str(token): 1 for token in range(20_000)}},
        schema({"enum": [f"value {number}" for number in range(20_000)]}),
        {"structured_outputs": {"grammar": 'root ::= ("a" | "b" | root){1,1000}'}},
        {"response_format": {"type": "structural_tag", "format": {}}},
        schema({"anyOf": [{"type": "string"}, {"$ref": "#"}]}),
        schema({"properties": {"x": {"$ref": "#/a"}}, "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}),
        {"text": {"format": {"type": "grammar"}}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"$ref": "#"}}}},
        {"response_format": "json_object"},
        {"messages": json.loads("[" * 500 + "]" * 500), "n": 17},
        [],
        *(b"", b"{", b'{"model": "\xff"}', b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}"),
    ],
)
def test_request_that_would_occupy_the_engine_or_is_no_json_is_refused(request_: Any) -> None:
    content = request_ if isinstance(request_, bytes) else json.dumps(request_).encode()
    refused = ask("POST", CHAT, content=content)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, 400)


def test_list_of_models_has_no_folder_of_this_machine() -> None:
    models = [{"id": name, "root": root} for name, root in (("base", "/home/me/base"), ("trained", 'C:\\me\\"x"'))]

    async def listed(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, json.dumps({"data": models}, separators=(",", ":")).encode())

    answer = ask("GET", "/v1/models", app=listed)
    assert [model["id"] for model in answer.json()["data"]] == ["base", "trained"]
    assert "me" not in "".join(model["root"] for model in answer.json()["data"])
    assert len(answer.content) == int(answer.headers["content-length"])


def test_web_sockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(ServerGuard(ok)({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send))
    assert sent == ["websocket.close"]

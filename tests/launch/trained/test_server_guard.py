import asyncio
from typing import Any

import httpx
import pytest

from microbudget_rl.launch.trained.server_guard import KEY, MAX_BYTES, SERVED, ServerGuard

HERE, OPEN = "http://127.0.0.1:8000", "http://10.0.0.5:8000"
"""Addresses of the server; the guard knows them by the socket, not by the request."""

CHAT = "/v1/chat/completions"
SECRET = "a secret"


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(method: str, path: str, at: str = HERE, key: str = "", content: Any = None, **headers: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ServerGuard(ok)), base_url=at) as client:
            sent = ({"authorization": f"Bearer {key}"} if key else {}) | headers
            return await client.request(method, path, content=content, headers=sent)

    return asyncio.run(asked())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY, SECRET)
    return SECRET


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *((method, path, 200) for method, path in sorted(SERVED)),
        *(("GET", "/metrics", 404), ("POST", "/v1/load_lora_adapter", 404), ("POST", "/v1/models", 404)),
        ("OPTIONS", CHAT, 404),
    ],
)
def test_only_the_openai_api_is_served_and_only_with_the_key(method: str, path: str, status: int, secret: str):
    refused = ask(method, path, OPEN, content=b"{}")
    assert (refused.status_code, refused.headers["connection"]) == (401, "close")
    assert KEY in refused.json()["error"]["message"]
    for header, code in ((f"Basic {secret}", 401), (f"Bearer {secret}2", 401), (f"bearer {secret}", status)):
        assert ask(method, path, OPEN, content=b"{}", authorization=header).status_code == code


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:8000", 200), ("[::1]:9000", 200)),
        *((host, 403) for host in ("rebound.example", "rebound.example@127.0.0.1:8000:1", "")),
    ],
)
def test_loopback_serves_its_own_names_only(host: str, status: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KEY, raising=False)
    assert ask("GET", "/v1/models", host=host).status_code == status
    monkeypatch.setenv(KEY, SECRET)
    assert ask("GET", "/v1/models", OPEN, key=SECRET, host=host).status_code == 200


async def parts() -> Any:
    yield b"{}"


@pytest.mark.parametrize(
    ("content", "status"), [(b"{}".ljust(MAX_BYTES), 200), (b"{}".ljust(MAX_BYTES + 1), 413), (parts, 413)]
)
def test_bodies_are_limited_by_their_stated_length(content: Any, status: int, secret: str):
    body = content if isinstance(content, bytes) else content()
    assert ask("POST", CHAT, key=secret, content=body).status_code == status


def test_web_sockets_are_closed():
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(ServerGuard(ok)({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send))
    assert sent == ["websocket.close"]

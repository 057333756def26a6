import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from launch.after.server_guard import KEY, MOST_BYTES, ServerGuard

HERE, OPEN = "http://127.0.0.1:8000", "http://10.0.0.5:8000"
"""Addresses that the server is asked at; the guard knows them by the socket, not by what a request says."""

CHAT = "/v1/chat/completions"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with the number of bytes of a body, which it reads to its end."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    method: str, path: str, at: str = HERE, key: str = "", content: Any = None, **headers: str
) -> tuple[int, httpx.Response]:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(ServerGuard(echo))
        async with httpx.AsyncClient(transport=transport, base_url=at) as client:
            return await client.request(
                method, path, content=content, headers=({"authorization": f"Bearer {key}"} if key else {}) | headers
            )

    answer = asyncio.run(asked())
    return answer.status_code, answer


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY, "a secret")
    return "a secret"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations"),
        ("GET", "/metrics"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/models"),
        ("GET", "/v1/../metrics"),
        ("OPTIONS", CHAT),
    ],
)
def test_what_is_not_the_openai_api_is_off(method: str, path: str, secret: str) -> None:
    assert ask(method, path)[0] == 401
    assert ask(method, path, key=secret)[0] == 404


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses"])
def test_all_that_is_served_asks_for_the_key(path: str, secret: str) -> None:
    status, answer = ask("POST", path, OPEN, content=b"{}")
    assert (status, answer.headers["connection"]) == (401, "close")
    assert KEY in answer.json()["error"]["message"]
    assert ask("POST", path, OPEN, content=b"{}", authorization=f"Basic {secret}")[0] == 401
    assert ask("POST", path, OPEN, key=f"{secret}2")[0] == 401
    assert ask("POST", path, OPEN, content=b"{}", authorization=f"bearer {secret}")[1].text == "2"


def test_health_needs_no_key(secret: str) -> None:
    assert ask("GET", "/health", OPEN)[0] == 200


def test_blank_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "  ")
    assert ask("GET", "/v1/models")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:9000", 200),
        ("rebound.example", 403),
        ("127.0.0.1.rebound.example:8000", 403),
        ("rebound.example@127.0.0.1:8000:1", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_on_loopback_only_its_own_names_are_answered(host: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert ask("GET", "/v1/models", host=host)[0] == status


def test_elsewhere_the_key_stands_for_the_name(secret: str) -> None:
    assert ask("GET", "/v1/models", OPEN, key=secret, host="model.example")[0] == 200


@pytest.mark.parametrize(("size", "status"), [(MOST_BYTES, 200), (MOST_BYTES + 1, 413)])
def test_bodies_have_a_limit_stated_or_not(size: int, status: int, secret: str) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, size, 2**18):
            yield b"x" * min(2**18, size - start)

    assert ask("POST", CHAT, key=secret, content=b"x" * size)[0] == status
    streamed, answer = ask("POST", CHAT, key=secret, content=parts())
    assert streamed == status
    if status == 200:
        assert int(answer.text) == size


def test_body_that_never_ends_is_not_kept(secret: str) -> None:
    given = 0

    async def receive() -> dict[str, Any]:
        nonlocal given
        given += 2**16
        return {"type": "http.request", "body": b"x" * 2**16, "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "server": ("10.0.0.5", 8000)}
    key = (b"authorization", f"Bearer {secret}".encode())
    asyncio.run(ServerGuard(echo)({**scope, "headers": []}, receive, send))
    assert (sent[0]["status"], given) == (401, 0)
    asyncio.run(ServerGuard(echo)({**scope, "headers": [key]}, receive, send))
    assert sent[2]["status"] == 413
    assert given <= MOST_BYTES + 2 * 2**16


def test_no_web_sockets() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(ServerGuard(echo)({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == ["websocket.close"]

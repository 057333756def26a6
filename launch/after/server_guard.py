"""Stands before vLLM's server, whose own key guards only a part of what it serves.

vLLM loads it by `--middleware`. Nothing but the OpenAI API and a bare GET /health is served.
"""

import hmac
import ipaddress
import json
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

KEY = "VLLM_API_KEY"
"""Environment variable of the key. The process list shows what is on a command line to all users."""

HEALTH = ("GET", "/health")
SERVED = {
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
}

HOST = re.compile(r"(\[[\da-f:.]+\]|[\w.-]+)(?::\d+)?", re.IGNORECASE)
"""A Host header: an address or a name, perhaps a port."""

MOST_BYTES = 2**20
"""Size of a request's body. vLLM needs fifty times that in memory; a conversation of 4,096 tokens has 20 kB."""


class ServerGuard:
    """An ASGI middleware that refuses foreign hosts, missing keys, unknown paths and large bodies, in this order."""

    def __init__(self, app: App) -> None:
        self._app, self._key = app, os.environ.get(KEY, "").strip().encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers, asked = list(scope["headers"]), (scope["method"], scope["path"])
        if loopback(str((scope["server"] or ("",))[0])) and not self._named_here(headers):
            return await refuse(send, HTTPStatus.FORBIDDEN, "ask it by the name localhost or a loopback address")
        if asked == HEALTH:
            return await self._app(scope, receive, send)
        if self._key and not self._has_key(headers):
            return await refuse(send, HTTPStatus.UNAUTHORIZED, f"send the key of {KEY} as a bearer token")
        if asked not in SERVED:
            return await refuse(send, HTTPStatus.NOT_FOUND, "the server has the OpenAI API alone")
        body = await read_body(headers, receive)
        if body is None:
            return await refuse(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {MOST_BYTES} bytes")
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(parts, None) or await receive()

        return await self._app(scope, again, send)

    def _named_here(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the Host header is this machine's own: the name of a page elsewhere may resolve to loopback, too."""
        hosts = values(headers, b"host")
        return len(hosts) == 1 and loopback(hostname(hosts[0].decode("latin-1")))

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = values(headers, b"authorization")
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)


def values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return all values of a header, whose name is in lower case."""
    return [value for key, value in headers if key.lower() == name]


def hostname(host: str) -> str:
    """Return a Host header without its port; empty if it is none."""
    found = HOST.fullmatch(host)
    return found[1].strip("[]") if found else ""


def loopback(host: str) -> bool:
    """Whether a name or an address is that of a machine for itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large, by what is stated or by what comes."""
    if any(not length.isdigit() or int(length) > MOST_BYTES for length in values(headers, b"content-length")):
        return None
    body = b""
    while len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):  # the last part, or a client that has left
            return body if len(body) <= MOST_BYTES else None
    return None


async def refuse(send: Send, status: HTTPStatus, remedy: str) -> None:
    """Answer with an error as the OpenAI API has them, and end the connection."""
    error = {"message": f"{status.phrase}: {remedy}", "type": status.name.lower(), "code": status.value}
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})

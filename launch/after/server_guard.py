"""Stands before vLLM's server, whose own key guards only a part of what it serves.

vLLM loads it by `--middleware`. Nothing but the OpenAI API and a bare GET /health is served.
"""

import hmac
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

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

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app, self._key = app, os.environ.get(KEY, "").strip().encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers  # of vLLM, which not every environment has

        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers, asked = Headers(scope=scope), (scope["method"], scope["path"])
        refusal = self._refusal(str((scope["server"] or ("",))[0]), asked, headers)
        if refusal is None and asked != HEALTH:
            body = await read_body(headers, receive)
            if body is None:
                refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {MOST_BYTES} bytes"
            else:
                receive = replay(body, receive)
        if refusal is not None:
            return await refuse(*refusal)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _refusal(self, server: str, asked: tuple[str, str], headers: Any) -> tuple[HTTPStatus, str] | None:
        """Return why a request is refused, by its headers, and the remedy. On a loopback address its Host header has to
        be this machine's own: the name of a page elsewhere may resolve to loopback, too.
        """
        hosts, keys = headers.getlist("host"), headers.getlist("authorization")
        host = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if loopback(server) and not (host and loopback(host[1].strip("[]"))):
            return HTTPStatus.FORBIDDEN, "ask it by the name localhost or a loopback address"
        scheme, _, key = keys[0].partition(" ") if len(keys) == 1 else ("", "", "")
        known = scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode("latin-1"), self._key)
        if self._key and asked != HEALTH and not known:
            return HTTPStatus.UNAUTHORIZED, f"send the key of {KEY} as a bearer token"
        if asked not in SERVED | {HEALTH}:
            return HTTPStatus.NOT_FOUND, "the server has the OpenAI API alone"
        return None


def loopback(host: str) -> bool:
    """Whether a name or an address is that of a machine for itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def read_body(headers: Any, receive: Any) -> bytes | None:
    """Return the body of a request; None if it is too large, by what is stated or by what comes."""
    if any(not length.isdecimal() or int(length) > MOST_BYTES for length in headers.getlist("content-length")):
        return None
    body, more = b"", True
    while more and len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # none after the last part, or from a client that has left
    return body if len(body) <= MOST_BYTES else None


def replay(body: bytes, receive: Any) -> Callable[[], Awaitable[Any]]:
    """Return a source of messages that begins with a body that has been read."""
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Any:
        return next(parts, None) or await receive()

    return again


def refuse(status: HTTPStatus, remedy: str) -> Any:
    """Return an answer with an error as the OpenAI API has them, which ends the connection."""
    from starlette.responses import JSONResponse

    error = {"message": f"{status.phrase}: {remedy}", "type": status.name.lower(), "code": status.value}
    challenge = {"www-authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return JSONResponse({"error": error}, status.value, {"connection": "close", **challenge})

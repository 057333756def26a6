"""An ASGI middleware in front of vLLM's server, whose own API key protects only some of its paths.

vLLM loads it with `--middleware`. It serves only the OpenAI API and GET /health.
"""

import hmac
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

KEY = "VLLM_API_KEY"
"""Environment variable of the key. A command line would show it to all users in the process list."""

HEALTH = ("GET", "/health")
SERVED = {
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
}

HOST = re.compile(r"(\[[\da-f:.]+\]|[\w.-]+)(?::\d+)?", re.IGNORECASE)
"""Pattern of a Host header: an address or a name, and possibly a port."""

MAX_BYTES = 2**20
"""Largest body of a request, bytes. vLLM needs fifty times as much memory; a chat of 4,096 tokens has 20 kB."""


class ServerGuard:
    """Refuses foreign hosts, missing keys, unknown paths, and bodies that are too large or have no stated length."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app, self._key = app, os.environ.get(KEY, "").encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers  # vLLM depends on it, and some environments have no vLLM
        from starlette.responses import JSONResponse

        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http" and (refusal := self._refusal(scope, Headers(scope=scope))):
            status, remedy = refusal
            error = {"message": f"{status.phrase}: {remedy}", "type": status.name.lower(), "code": status.value}
            headers = {"connection": "close", "www-authenticate": "Bearer"}
            await JSONResponse({"error": error}, status.value, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Any, headers: Any) -> tuple[HTTPStatus, str] | None:
        """Return the status and the remedy for a request that is refused, otherwise None.

        On a loopback address the Host header must be a loopback one too, because a web page can make its own name
        resolve to loopback.
        """
        endpoint, host = (scope["method"], scope["path"]), HOST.fullmatch(headers.get("host", ""))
        if loopback(scope["server"][0]) and not (host and loopback(host[1].strip("[]"))):
            return HTTPStatus.FORBIDDEN, "use the name localhost or a loopback address"
        if endpoint == HEALTH:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode("latin-1"), self._key)
        if self._key and not known:
            return HTTPStatus.UNAUTHORIZED, f"send the key of {KEY} as a bearer token"
        if endpoint not in SERVED:
            return HTTPStatus.NOT_FOUND, "the server only has the OpenAI API"
        length = headers.get("content-length", "0" if scope["method"] == "GET" else "")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > MAX_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"state a Content-Length of at most {MAX_BYTES} bytes"
        return None


def loopback(host: str) -> bool:
    """Whether a name or an address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

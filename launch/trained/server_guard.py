"""An ASGI middleware in front of vLLM's server, whose own API key protects only some of its paths.

vLLM loads it with `--middleware`. A request that it lets through may keep the engine from all others.
"""

import hmac
import ipaddress
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

KEY = "VLLM_API_KEY"
"""Environment variable of the key. A command line would show it to all users in the process list."""

SERVED = {
    *(("GET", path) for path in ("/health", "/v1/models")),
    *(("POST", f"/v1/{path}") for path in ("chat/completions", "completions", "responses")),
}
"""Methods and paths that are served. OPTIONS would let any web page in."""

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
            code, remedy = refusal
            headers = {"connection": "close", "www-authenticate": "Bearer"}
            await JSONResponse({"error": {"message": remedy, "code": code}}, code, headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Any, headers: Any) -> tuple[int, str] | None:
        """Return the status and the remedy for a request that is refused, otherwise None.

        On a loopback address the Host header must be a loopback one too, because a web page can make its own name
        resolve to loopback.
        """
        host = HOST.fullmatch(headers.get("host", ""))
        if loopback(scope["server"][0]) and not (host and loopback(host[1].strip("[]"))):
            return 403, "use the name localhost or a loopback address"
        scheme, _, key = headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode("latin-1"), self._key)
        if self._key and not known:
            return 401, f"send the key of {KEY} as a bearer token"
        if (scope["method"], scope["path"]) not in SERVED:
            return 404, "the server only has the OpenAI API"
        length = headers.get("content-length", "0" if scope["method"] == "GET" else "")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > MAX_BYTES:
            return 413, f"state a Content-Length of at most {MAX_BYTES} bytes"
        return None


def loopback(host: str) -> bool:
    """Whether a name or an address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

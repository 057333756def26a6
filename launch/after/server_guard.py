"""An ASGI middleware in front of vLLM's server, whose own API key protects only some of its paths.

vLLM loads it with `--middleware`. It serves only the OpenAI API and GET /health, and no request that would keep the
engine from all others: vLLM 0.32 has no deadline for a step, nor for a grammar.
"""

import hmac
import ipaddress
import json
import os
import re
from collections.abc import Awaitable, Callable
from graphlib import CycleError, TopologicalSorter
from http import HTTPStatus
from typing import Any

KEY = "VLLM_API_KEY"
"""Environment variable of the key. A command line would show it to all users in the process list."""

HEALTH = ("GET", "/health")
MODELS = ("GET", "/v1/models")
SERVED = {
    MODELS,
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
}

HOST = re.compile(r"(\[[\da-f:.]+\]|[\w.-]+)(?::\d+)?", re.IGNORECASE)
"""Pattern of a Host header: an address or a name, and possibly a port."""

MAX_BYTES = 2**20
"""Largest body of a request, bytes. vLLM needs fifty times as much memory; a chat of 4,096 tokens has 20 kB."""

TEXTS = {"messages", "prompt", "input", "instructions"}
MOST_SETTINGS = 2**14
"""Fields with text for the model, and most characters of all others. With 20,000 entries a `logit_bias` takes 0.1 s per
token, and an `enum` 30 s before the first."""

MOST_RESPONSES = 16
"""Most responses to a request, twice as many as the engine generates at the same time."""

FORMATS = ("text", "json_object", "json_schema")
"""Types of a response's format that are served. A grammar of one line can keep vLLM busy for minutes."""

FOLDER = re.compile(rb'"root":"(\\.|[^"\\])*"')
"""Pattern of a model's folder on this machine in the list of models."""


class ServerGuard:
    """Refuses foreign hosts, missing keys, unknown paths, bodies that are too large or have no stated length, and
    requests that would keep the engine from all others.
    """

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app, self._key = app, os.environ.get(KEY, "").encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers  # vLLM depends on it, and some environments have no vLLM
        from starlette.responses import JSONResponse

        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if not refusal and scope["method"] == "POST":
            body, receive = await read(receive)
            refusal = (HTTPStatus.BAD_REQUEST, remedy) if (remedy := excess(body)) else None
        if refusal:
            status, remedy = refusal
            error = {"message": f"{status.phrase}: {remedy}", "type": status.name.lower(), "code": status.value}
            headers = {"connection": "close", "www-authenticate": "Bearer"}
            await JSONResponse({"error": error}, status.value, headers)(scope, receive, send)
        else:
            listed = (scope["method"], scope["path"]) == MODELS
            await self._app(scope, receive, without_folders(send) if listed else send)

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


async def read(receive: Any) -> tuple[bytes, Any]:
    """Return the body of a request, and a function that receives it again and then what follows."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    again = iter(messages)

    async def receive_again() -> Any:
        return next(again, None) or await receive()

    return b"".join(message.get("body", b"") for message in messages), receive_again


def excess(body: bytes) -> str:
    """Return the remedy for a request that would keep the engine from others, or that no text fulfils; else nothing."""
    try:
        request = json.loads(body)
        settings = json.dumps({name: value for name, value in request.items() if name not in TEXTS})
        formats = [form for form in (request.get("response_format"), (request.get("text") or {}).get("format")) if form]
        schemas = [form.get("schema") or (form.get("json_schema") or {}).get("schema") for form in formats]
    except (ValueError, AttributeError, RecursionError):
        return "send a JSON object as the OpenAI API describes it"
    prompt, number = request.get("prompt"), request.get("n") or 1
    prompts = len(prompt) if isinstance(prompt, list) and any(not isinstance(token, int) for token in prompt) else 1
    if not isinstance(number, int) or number * prompts > MOST_RESPONSES:
        return f"ask for {MOST_RESPONSES} responses at most, n for each prompt"
    if len(settings) > MOST_SETTINGS:
        return f"the fields besides {', '.join(sorted(TEXTS))} may have {MOST_SETTINGS} characters: shorten them"
    if request.get("structured_outputs") or any(form.get("type") not in FORMATS for form in formats):
        return f"grammars are off: use a response_format of the type {', '.join(FORMATS)}"
    return "let no $ref of the JSON schema lead back to itself" if any(map(circular, schemas)) else ""


def circular(schema: Any) -> bool:
    """Whether a part of a JSON schema refers to itself before it describes any text."""
    rest, graph = [("#", schema)], {}
    for place, part in rest:
        inner = dict(enumerate(part)) if isinstance(part, list) else part if isinstance(part, dict) else {}
        rest += [(f"{place}/{name}", value) for name, value in inner.items()]
        same = inner if isinstance(part, list) else ("anyOf", "allOf", "oneOf")
        graph[place] = [*(f"{place}/{name}" for name in same), str(inner.get("$ref"))]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def without_folders(send: Any) -> Any:
    """Return a function that sends a list of models without their folders, in as many bytes."""

    async def send_names(message: Any) -> None:
        body = FOLDER.sub(lambda found: b'"root":""'.ljust(len(found[0])), message.get("body", b""))
        await send({**message, "body": body} if body else message)

    return send_names


def loopback(host: str) -> bool:
    """Whether a name or an address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

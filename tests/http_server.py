"""An HTTP server on a free port of loopback, whose answers a test chooses."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Iterable[bytes]]
"""Status, headers and content, maybe in parts. Status 0: the content is all that is sent."""

Respond = Callable[[str, Mapping[str, str], bytes], Answer]
"""Returns the answer to a request's path, without its query, headers and body."""


def in_full(content: Any, status: int = 200, **headers: str) -> Answer:
    """Return the answer with this content: bytes, or anything else as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}, [data]


@contextlib.contextmanager
def serving(respond: Respond) -> Iterator[str]:
    """Yield the address of a server until the end of the context."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = respond(self.path.partition("?")[0], self.headers, body)
            if status:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
            with contextlib.suppress(OSError):  # the client may have left
                self.wfile.writelines(content if self.command != "HEAD" else [])

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815  # as the library names them

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

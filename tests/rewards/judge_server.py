"""A server with OpenAI's interface on this machine, which replies as a test tells it."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], str]


class JudgeServer(ThreadingHTTPServer):
    """asked: the requests so far, each as its key and body. answer: returns the answer to a body."""

    daemon_threads, block_on_close = True, False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[dict[str, Any]], Answer] = lambda body: completion(graded(body, 7))
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers["Authorization"], body))
        status, headers, text = self.server.answer(body)
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


def graded(body: dict[str, Any], score: int) -> str:
    """Return the reply that a judge is told to give."""
    code = re.findall(r'"code": "(\d{6})"', body["messages"][0]["content"])
    return json.dumps({"code": code[0], "score": score})


def completion(reply: str) -> Answer:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}]
    return 200, {}, json.dumps({"choices": choices, "usage": {"total_tokens": 100}})

"""What a run has trained, in a real engine: chat through a pipe, the server with a real client."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.trained_runs import write_trained

ROOT = Path(__file__).parents[2]

KEY = "a secret"


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained(tmp_path_factory.mktemp("runs") / "mine", tiny_model, std=0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chat_through_a_pipe(run: Path) -> None:
    script = "/problem 2\nhello\n/problem 7\n/samples\n/quit\n"
    command = [sys.executable, str(ROOT / "launch" / "chat.py"), str(run)]
    ended = subprocess.run(command, input=script, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout
    assert "gold: " in said
    assert said.count("\nbase: ") == said.count("\ntrained: ") == 2
    assert "give a number from 1 to 6" in said
    assert "right before, wrong after" not in said
    answers = [line.partition(": ")[2] for line in said.splitlines() if line.startswith(("base: ", "trained: "))]
    assert answers[2] != answers[3]


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "launch" / "serve.py"), str(run), f"port={port}"]
    with subprocess.Popen(command, env={**os.environ, "VLLM_API_KEY": KEY}, start_new_session=True) as process:
        until = time.monotonic() + 500
        while time.monotonic() < until and process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_server_answers_a_real_client_for_both_models(server: str) -> None:
    from openai import AuthenticationError, OpenAI

    client = OpenAI(base_url=server, api_key=KEY)
    assert {model.id for model in client.models.list()} == {"base", "trained"}

    def ask(model: str) -> str:
        messages = [{"role": "user", "content": "What is 3 + 4?"}]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=12)  # type: ignore[arg-type]
        return str(answer.choices[0].message.content)

    assert ask("base") != ask("trained")
    with pytest.raises(AuthenticationError):
        OpenAI(base_url=server, api_key="another").models.list()

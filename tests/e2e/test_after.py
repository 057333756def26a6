"""What a run has trained, in a real engine: chat through a pipe, the server with a real client."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from microbudget_rl.launch import check_adapter
from tests.conftest import ROOT
from tests.trained_runs import write_trained

KEY = "a secret"


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained(tmp_path_factory.mktemp("runs") / "mine", tiny_model, std=0.2)


@pytest.mark.slow
def test_chat_through_a_pipe(run: Path):
    script = "/problem 2\nhello\n/problem 7\n"
    command = [sys.executable, str(ROOT / "launch" / "chat.py"), str(run)]
    ended = subprocess.run(command, input=script, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""  # nothing of an engine, or of a library
    said = ended.stdout
    assert [line.split()[0] for line in said.splitlines()[:2]] == ["Starting", "Ready:"]
    assert "reference answer: " in said
    assert "give a number from 1 to 6" in said
    _, posed, spoken = said.split("┏")
    assert "├" in posed  # above the verdicts
    rows = [line.split("│")[1:3] for line in spoken.splitlines() if line.count("│") == 3]
    base, trained = ("".join(column) for column in zip(*rows, strict=True))
    assert base.strip() != trained.strip()


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
                key = {"authorization": f"Bearer {KEY}"}
                httpx.get(f"http://127.0.0.1:{port}/health", headers=key).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
        process.send_signal(signal.SIGINT)
        process.wait(240)


@pytest.mark.slow
def test_server_answers_a_real_client_for_both_models(server: str):
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


@pytest.mark.slow
def test_server_serves_nothing_else_and_keeps_its_memory(server: str):
    root, key = server.removesuffix("/v1"), {"authorization": f"Bearer {KEY}"}
    for path in ("/invocations", "/tokenize", "/v1/load_lora_adapter", "/metrics", "/docs"):
        assert httpx.post(root + path, json={}).status_code == 401
        assert httpx.post(root + path, json={}, headers=key).status_code == 404
    assert httpx.get(f"{server}/models", headers={**key, "host": "rebound.example"}).status_code == 403

    served = next(
        process
        for process in psutil.process_iter(["cmdline"])
        if f"--port {httpx.URL(root).port}" in " ".join(process.info["cmdline"] or [])
    )
    assert KEY not in " ".join(served.cmdline())
    before = served.memory_info().rss
    for headers in ({}, key):
        with contextlib.suppress(httpx.TransportError):  # the server may close before all is sent
            answer = httpx.post(f"{server}/completions", content=(b" " * 2**20 for _ in range(300)), headers=headers)
            assert answer.status_code == (413 if headers else 401)
    assert served.memory_info().rss < before + 2**28
    assert httpx.get(f"{server}/models", headers=key).status_code == 200


@pytest.mark.slow
def test_server_serves_the_adapter(server: str, run: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    adapter = run / "checkpoints" / "latest"
    assert check_adapter.main([str(tiny_model), str(adapter), f"server={server}", "served=trained"]) == 0


ENGINE = """
import json, sys
from microbudget_rl.actors.rollout.vllm_settings import cpu_settings, set_environment
from microbudget_rl.actors.runtime.placement import place
set_environment(place((0,), 0).rollouts[0], 1)
from vllm import LLM, SamplingParams
engine = LLM(model=sys.argv[1], dtype="float32", max_model_len=256, **cpu_settings(256))
asked = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
(answer,) = engine.generate({"prompt_token_ids": json.loads(sys.argv[2])}, asked, use_tqdm=False)
print("ids", list(answer.outputs[0].token_ids))
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="the settings are those of a CPU")
def test_vllm_serves_a_merged_export_as_it_is(run: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    from microbudget_rl.launch import export

    merged = tmp_path / "merged"
    assert export.main([str(run), f"to={merged}", "type=float32"]) == 0
    prompt = [1, 40, 41, 42, 43, 44]
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False)[0, 6:]
    given = [sys.executable, "-c", ENGINE, str(merged), json.dumps(prompt)]
    ended = subprocess.run(given, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    line = next(line for line in ended.stdout.splitlines() if line.startswith("ids "))
    assert json.loads(line.removeprefix("ids "))[:4] == expected.tolist()[:4]

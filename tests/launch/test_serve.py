import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launch import serve
from tests.trained_runs import write_trained


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_USE_FLASHINFER_SAMPLER"):
        monkeypatch.setenv(name, "")  # what is set here is undone after the test
    monkeypatch.chdir(tmp_path)
    return write_trained(tmp_path / "runs" / "mine", tiny_model)


def served(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The options that the server would be started with."""
    commands: list[list[str]] = []
    monkeypatch.setattr(serve, "watch", lambda command, *_: commands.append(command) or 0)
    assert serve.main(arguments) == 0
    (command,) = commands
    assert importlib.util.find_spec(command[2])
    words = " ".join(command[3:]).split("--")[1:]
    return dict(word.strip().partition(" ")[::2] for word in words)


def test_server_has_the_settings_of_the_runs_engines(
    run: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    options = served([str(run), f"port={free_port}"], monkeypatch)
    assert options["host"] == "127.0.0.1"
    assert options["served-model-name"] == "base"
    assert options["lora-modules"] == f"trained={run}/checkpoints/update-000004/adapter"
    assert options["lora-target-modules"].startswith("down_proj gate_proj")
    assert (options["max-lora-rank"], options["dtype"], options["max-model-len"]) == ("8", "bfloat16", "2048")
    assert "enable-lora" in options
    assert {"enforce-eager", "no-enable-chunked-prefill"} <= options.keys()


def test_address_that_others_reach_needs_a_key(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    arguments = [str(run), "host=0.0.0.0", f"port={free_port}"]
    assert serve.main(arguments) == 2
    assert "set VLLM_API_KEY in the environment" in capsys.readouterr().err
    monkeypatch.setenv("VLLM_API_KEY", "a secret")
    assert served(arguments, monkeypatch)["host"] == "0.0.0.0"
    said = serve.example("0.0.0.0", 8000)
    assert "Bearer $VLLM_API_KEY" in said
    assert "a secret" not in said


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
print("a warning of a library", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

WATCH = """
import sys
from launch import serve
serve.server = lambda *_: [sys.executable, "-c", sys.argv[1], sys.argv[2]]
sys.exit(serve.main([sys.argv[3], f"port={sys.argv[2]}"]))
"""


def start(run: Path, code: str, port: int) -> subprocess.Popen[str]:
    """Serve a run by Python code in the server's place."""
    command = [sys.executable, "-c", WATCH, code, str(port), str(run)]
    environment = {**os.environ, "TMPDIR": str(run)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_screen_is_clean_and_a_signal_ends_the_server(run: Path, free_port: int) -> None:
    with start(run, SERVER, free_port) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[0] == "Starting a server of runs/mine/checkpoints/update-000004 …\n"
        assert lines[1].startswith("Ready; Ctrl-C ends it.")
        (log,) = run.glob("microbudget-serve-*.log")
        assert "a warning of a library" in log.read_text()
        command = shlex.split(lines[3])
        assert command[1] == f"http://127.0.0.1:{free_port}/v1/chat/completions"
        assert json.loads(command[-1])["model"] == "trained"
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 130
        assert not log.exists()
        assert process.stderr
        assert process.stderr.read() == ""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


def test_server_that_fails_leaves_its_log(run: Path, free_port: int) -> None:
    with start(run, "raise RuntimeError('no memory')", free_port) as process:
        said, error = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Ready" not in said
    (log,) = run.glob("microbudget-serve-*.log")
    assert error == f"serve.py: the server has ended with 1; its log is {log}\n"
    assert "no memory" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["runs/mine", "port=http"], "port=http: use a number from 1 to 65535"),
        (["runs/mine", "host=here"], "host=here: give an address of this machine"),
        (["runs/mine", "hots=127.0.0.1"], "nearest: host"),
        (["runs/mine", "checkpoint=update-000009"], "checkpoint=update-000009: the run in runs/mine has latest"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_port_in_use_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert serve.main([str(run), f"port={other.getsockname()[1]}"]) == 2
    assert "cannot be used (Address already in use): give another port" in capsys.readouterr().err

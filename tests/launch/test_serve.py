import importlib
import importlib.util
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.storage.checkpoints import Checkpoints
from microbudget_rl.launch import serve
from microbudget_rl.launch.trained import policy
from tests.trained_runs import SHOWN, write_trained


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_USE_FLASHINFER_SAMPLER"):
        monkeypatch.setenv(name, "")  # what is set here is undone after the test
    monkeypatch.chdir(tmp_path)
    return write_trained(tmp_path / "runs" / "mine", tiny_model, settings=(SHOWN,))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def served(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The options that the server would be started with."""
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: commands.append(command) or -signal.SIGKILL)
    assert serve.main([*arguments, f"port={free_port()}"]) == 137
    (command,) = commands
    assert importlib.util.find_spec(command[2])
    words = " ".join(command[3:]).split("--")[1:]
    return dict(word.strip().partition(" ")[::2] for word in words)


def test_server_has_the_settings_of_the_engines(run: Path, monkeypatch: pytest.MonkeyPatch):
    options = served([str(run)], monkeypatch)
    assert options["host"] == "127.0.0.1"
    assert options["served-model-name"] == "base"
    module, _, name = options["middleware"].rpartition(".")
    assert inspect.isclass(getattr(importlib.import_module(module), name))
    assert options["lora-modules"] == f"trained={run}/checkpoints/update-000004/adapter"
    checkpoints = Checkpoints(run / "checkpoints")
    shutil.copytree(checkpoints.path_of(4), checkpoints.path_of(2))
    checkpoints.mark_best(2)
    for asked, version in ((), 2), (("checkpoint=latest",), 4):
        adapter = checkpoints.path_of(version) / "adapter"
        assert served([str(run), *asked], monkeypatch)["lora-modules"] == f"trained={adapter}"
    assert options["lora-target-modules"].startswith("down_proj gate_proj")
    assert (options["max-lora-rank"], options["dtype"], options["max-model-len"]) == ("8", "bfloat16", "2048")
    assert {"enable-lora", "enforce-eager", "no-enable-chunked-prefill"} <= options.keys()
    assert "hf-overrides" not in options


def test_cache_holds_the_conversations_and_not_the_runs_samples(
    tiny_model: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
):
    large = write_trained(tmp_path / "runs" / "large", tiny_model, settings=("rollout.kv_cache_gib=1000",))
    served([str(large)], monkeypatch)
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "1"
    monkeypatch.setattr(policy, "free_memory", lambda: 2**30)
    assert "1.0 GiB free" in refused(serve.main, [str(run), f"port={free_port()}"])


def test_server_on_a_gpu_has_logits_in_float32(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "talking", lambda trained: (trained.config, Share(gpus=1.0, memory=0.9)))
    options = served([str(run)], monkeypatch)
    assert json.loads(options["hf-overrides"]) == {"head_dtype": "float32"}
    assert json.loads(options["default-chat-template-kwargs"]) == {}


def test_open_address_needs_a_key(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
):
    arguments = [str(run), "host=0.0.0.0"]
    for key in ("", " \t"):
        monkeypatch.setenv("VLLM_API_KEY", key)
        assert "VLLM_API_KEY" in refused(serve.main, arguments)
    monkeypatch.setenv("VLLM_API_KEY", "a secret")
    options = served(arguments, monkeypatch)
    assert options["host"] == "0.0.0.0"
    assert "a secret" not in " ".join([*options, *options.values()])
    said = capsys.readouterr().out
    assert "1 few-shot example" in said
    assert "a secret" not in said


def test_taken_port_is_refused_before_the_run_is_read(refused: Callable[..., str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "port=" in refused(serve.main, ["nowhere", f"port={taken.getsockname()[1]}"])

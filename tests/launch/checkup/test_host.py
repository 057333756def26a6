"""What the doctor says of the host and the model."""

from pathlib import Path

import pytest

from actors.runtime.host_resources import HostFree
from conf.load import load
from launch.checkup import host
from launch.checkup.host import look_at_compiler, look_at_model, look_at_resources, look_at_software
from launch.hardware.machine import detect
from launch.plan import host_needs
from tests.launch.plan.plans import CPU, plan


def test_this_machine_has_all_that_a_run_needs() -> None:
    findings = [*look_at_software(detect("cpu")), look_at_model(load(["conf=quickstart"]))]
    assert {finding.state for finding in findings} == {"good"}


def test_a_compiler_that_is_missing_or_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(host, "COMPILERS", ("no-such-compiler",))
    assert look_at_compiler().text.startswith("no C++ compiler; install")
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: vector: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert "compiles nothing and says: fatal error: vector" in look_at_compiler().text


def test_too_little_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_needs, "measure", lambda _: HostFree(disk=2**20, shared_memory=2**40, memory=2**40))
    disk, _, memory = look_at_resources(plan("quickstart", CPU), tmp_path / "runs" / "mine")
    assert (disk.what, disk.state) == (f"run.folder={tmp_path}/runs: its disk", "bad")
    assert disk.text.endswith("make room or name a folder on another disk")
    assert memory.state == "good"


def test_a_model_that_is_not_to_be_had(tmp_path: Path) -> None:
    found = look_at_model(load(["conf=quickstart", f"model.path={tmp_path}"]))
    assert found.state == "bad"
    assert "no config.json" in found.text


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("GatedRepoError", "accept its licence at https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct"),
        ("RepositoryNotFoundError", "correct model.path"),
        ("ConnectError", "check the network"),
    ],
)
def test_a_hub_that_says_no(error: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def refuse(*_: object, **__: object) -> None:
        raise type(error, (Exception,), {})

    monkeypatch.setattr(HfApi, "auth_check", refuse)
    found = look_at_model(load(["conf=llama"]))
    assert found.state == "bad"
    assert error in found.text
    assert remedy in found.text

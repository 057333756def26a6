"""The doctor's findings on GPUs, by NVML's answers, on the host and on the model."""

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest
from huggingface_hub import constants

from microbudget_rl.conf.load import load
from microbudget_rl.launch.checkup.findings import Finding, gpu_findings, model_finding, software_findings
from microbudget_rl.launch.hardware import gpus
from microbudget_rl.launch.hardware.machine import detect, with_listed

A40 = "0, GPU-0b, NVIDIA A40, 46068, 45634, [N/A], 580.65.06, 8.6\n"
Install = Callable[[str], ModuleType]


def found(what: str, device: str = "auto") -> Finding:
    (one,) = [finding for finding in gpu_findings(device) if finding.name == what]
    return one


def states() -> list[str]:
    return [finding.state for finding in gpu_findings()]


def test_a_driver_before_cuda_13_and_a_compat_library_in_its_place(
    nvidia_smi: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    nvidia_smi(A40.replace("580.65.06", "570.86.10"))
    assert (found("driver").state, "570.86.10, and CUDA 13 needs 580" in found("driver").text) == ("bad", True)
    (tmp_path / "libcuda.so.580.65.06").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    assert (found("driver").state, "580.65.06" in found("driver").text) == ("good", True)


def test_gpus(nvidia_smi: Install):
    for row, state, text in (
        ("NVIDIA A40, 46068, 45634, [N/A], 580.65.06, 8.6", "good", "44.6 of 44.6 GiB free"),
        ("NVIDIA A40, 46068, 12000, [N/A], 580.65.06, 8.6", "warning", "another process"),
        ("Tesla T4, 15360, 15000, [N/A], 580.65.06, 7.5", "bad", "8.0"),
        ("NVIDIA GB10, [N/A], [N/A], [N/A], 580.65.06, 12.1", "bad", "memory"),
    ):
        nvidia_smi(f"0, GPU-0b, {row}\n")
        assert (found("GPU 0").state, text in found("GPU 0").text) == (state, True)


def test_a_gpu_that_is_not_asked_for_forbids_nothing(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(A40 + "1, GPU-1b, Tesla T4, 15360, 15000, [N/A], 580.65.06, 7.5\n")
    assert states() == ["good", "good", "bad"]
    assert found("GPU 1", "A40").state == "good"
    assert "device=A40" in found("GPU 1", "A40").text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert states() == ["good", "good", "good"]
    assert "CUDA_VISIBLE_DEVICES=0" in found("GPU 1").text


def test_a_driver_that_fails_or_hangs_or_is_missing(nvidia_smi: Install, monkeypatch: pytest.MonkeyPatch):
    nvml = nvidia_smi("")
    assert states() == ["good", "bad"]
    monkeypatch.setattr(nvml, "nvmlInit", Mock(side_effect=nvml.NVMLError("Driver Not Loaded")))
    assert "Driver Not Loaded" in found("driver").text
    monkeypatch.setattr(nvml, "nvmlInit", Mock(side_effect=nvml.NVMLError_LibraryNotFound))
    assert states() == ["warning"]
    monkeypatch.setattr(gpus, "ANSWER_S", 0.05)
    monkeypatch.setattr(nvml, "nvmlInit", lambda: time.sleep(60))
    assert "0.05 s" in found("driver").text


def test_this_machine_has_all_that_a_run_needs_but_a_compiler(monkeypatch: pytest.MonkeyPatch):
    assert {each.state for each in software_findings(detect("cpu"))} == {"good"}
    assert model_finding(load(["conf=quickstart"])).state == "good"
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("microbudget_rl.launch.checkup.findings.COMPILERS", ("no-such-compiler",))
    for machine, state in ((detect("cpu"), "warning"), (with_listed("A40", (0,)), "bad")):
        *_, compiler = software_findings(machine)
        assert (compiler.name, compiler.state) == ("compiler", state)
        assert "g++" in compiler.text


def test_a_model_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for settings, model in ((["conf=llama"], "meta-llama/"), (["conf=quickstart", f"model.path={tmp_path}"], "tmp")):
        finding = model_finding(load(settings))
        assert (finding.state, model in finding.text) == ("bad", True)

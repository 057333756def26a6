"""The start of a run on GPUs of a stand-in for the driver: placement, environments, refusals."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.launch import run
from microbudget_rl.launch.hardware.gpus import Gpu
from microbudget_rl.launch.plan import measurements
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.run import main
from microbudget_rl.launch.sharing import CLIENT, READER

EXCLUSIVE = "0, GPU-a, NVIDIA A40, 46068, 45600, [N/A], 580.65.06, 8.6, Exclusive_Process\n"
A40 = "{}, GPU-{}, NVIDIA A40, 46068, {}, [N/A]\n"
Install = Callable[[str], Path]
Start = Callable[..., tuple[int, list[Plan], dict[str, str]]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Start a run up to where model and data would be fetched; exit code, the plan it goes by, its environment."""
    seen: list[Plan] = []
    environment: dict[str, str] = {}

    def go_on(plan: Plan, *_: object, **__: object) -> Plan:
        seen.append(plan)
        environment.update(os.environ)
        return plan

    for name, value in (
        ("check_build", lambda *_: None),
        ("check_host", lambda *_: None),
        ("prepare", go_on),
        ("ray_session", lambda *_, **__: nullcontext()),
        ("carry_out", lambda *_: 0),
    ):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr("microbudget_rl.launch.sharing.ipc_fault", lambda _: "")

    def begin(*arguments: str) -> tuple[int, list[Plan], dict[str, str]]:
        given = ["conf=r256_instruct", f"run.folder={tmp_path}", "dashboard.port=0"]
        return main([*given, *arguments]), seen, environment

    return begin


@contextmanager
def service(done: list[str], fault: str) -> Iterator[str]:
    done.append("served")
    try:
        yield fault
    finally:
        done.append("ended")


@pytest.mark.parametrize(
    ("fault", "arguments", "code", "done"),
    [
        ("", [], 0, ["served", "planned", "ended"]),
        ("no client", [], 0, ["served", "ended", "planned"]),
        ("", ["learner.max_staleness=0"], 0, ["planned"]),
        ("no client", ["run.nvidia_mps=on"], 2, ["served", "ended", "planned"]),
        ("", ["data.source=file:nowhere.csv"], 2, []),
        ("", ["budget.minutes=0.01"], 2, ["served", "planned", "ended"]),
    ],
)
def test_mps_is_tried_before_the_run_is_planned_once_and_ends_with_it(
    fault: str,
    arguments: list[str],
    code: int,
    done: list[str],
    nvidia_smi: Install,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
):
    happened, noted = list[str](), dict[str, str]()
    make_plan = measurements.make_plan

    def plan_once(*given: Any) -> Plan:
        happened.append("planned")
        return make_plan(*given)

    nvidia_smi(EXCLUSIVE if done[-1:] == ["ended"] else A40.format(0, "a", 45600))  # which serves under MPS only
    monkeypatch.setattr("microbudget_rl.launch.hardware.machine.MPS_TOOL", "bash")
    monkeypatch.setattr("microbudget_rl.launch.sharing.mps_service", lambda _: service(happened, fault))
    monkeypatch.setattr(measurements, "make_plan", plan_once)
    monkeypatch.setattr(run, "prepare", lambda *_, missing, **__: noted.update(missing))
    assert start(*arguments)[0] == code
    assert happened == done
    assert noted == ({"NVIDIA's MPS": fault} if fault and not code else {})


def test_sharing_is_tried_under_mps_once_a_killed_run_has_left_the_gpu(
    nvidia_smi: Install, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    nvidia_smi(A40.format(0, "a", 100))
    (tmp_path / "r256_instruct").mkdir()
    done: list[str] = []

    def clear(*_: object) -> None:
        done.append("cleared")
        nvidia_smi(A40.format(0, "a", 45600))

    def fault(gpu: Gpu) -> str:
        done.append(f"tried on {gpu.index}")
        return "no IPC"

    monkeypatch.setattr("microbudget_rl.launch.session.admission.clear_session", clear)
    monkeypatch.setattr("microbudget_rl.launch.sharing.ipc_fault", fault)
    monkeypatch.setattr("microbudget_rl.launch.hardware.machine.MPS_TOOL", "bash")
    monkeypatch.setattr("microbudget_rl.launch.sharing.mps_service", lambda _: service(done, ""))
    code, (plan,), _ = start()
    assert code == 0
    assert done[:3] == ["cleared", "served", "tried on 0"]
    assert (plan.config.model.shared_weights, plan.placement.weights) == ("off", None)


def test_a_plan_needs_no_free_memory_and_a_run_takes_the_gpu_it_names(nvidia_smi: Install, start: Start):
    nvidia_smi("0, GPU-a, Tesla T4, 15360, 15000, [N/A]\n" + A40.format(1, "b", 100))
    assert start("plan=true", "device=A40")[0] == 0
    nvidia_smi("0, GPU-a, Tesla T4, 15360, 15000, [N/A]\n" + A40.format(1, "b", 45600))
    code, _, environment = start("device=A40")
    assert (code, environment["CUDA_VISIBLE_DEVICES"]) == (0, "1")


@pytest.mark.parametrize(
    ("table", "arguments", "said"),
    [
        (A40.format(0, "a", 9000), [], "NVIDIA A40; nvidia-smi shows what else holds 35.8 GiB"),
        (EXCLUSIVE, [], "-c 0, or give run.nvidia_mps=on"),
        (A40.format(0, "a", 45600), ["run.nvidia_mps=on"], "nvidia-cuda-mps-control on the PATH"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_refused_in_one_line(
    table: str, arguments: list[str], said: str, nvidia_smi: Install, start: Start, refused: Any
):
    nvidia_smi(table)
    assert said in refused(lambda given: start(*given)[0], arguments)


OLD = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}


@pytest.mark.parametrize(("kernel", "asked", "grows"), [("generic", {}, 1), ("generic", OLD, 0), ("microsoft", {}, 0)])
def test_segments_grow_except_under_wsl_or_as_the_user_says(
    kernel: str, asked: dict[str, str], grows: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("platform.release", lambda: f"6.6.87.2-{kernel}-standard")
    for program in (CLIENT, READER):
        monkeypatch.setattr(os, "environ", dict(asked))
        exec(re.split("import torch|assert", program)[0])
        assert "".join(os.environ.values()).count("expandable_segments:True") == grows

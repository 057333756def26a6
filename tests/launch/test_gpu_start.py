"""The start of a run on GPUs of a stand-in for the driver: placement, environments, refusals."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from actors.rollout.vllm_settings import gpu_settings, set_environment
from actors.runtime.placement import Share
from conf.load import load
from conf.schema import Config
from conf.settings import changed
from launch import run
from launch.plan.plan import Plan, make_plan
from launch.run import main
from launch.session import preparation
from learner.actor import LearnerActor
from tests.gpu.test_sharing import plan_of, settings
from tests.launch.plan.plans import machine

DIVIDED = "0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 80994, Enabled\n"
EXCLUSIVE = "0, GPU-a, NVIDIA A40, 46068, 45600, [N/A], 580.65.06, 8.6, Exclusive_Process\n"
A40 = "{}, GPU-{}, NVIDIA A40, 46068, {}, [N/A]\n"
Install = Callable[[str], Path]
Start = Callable[..., tuple[int, list[Plan], dict[str, str]]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Start a run up to where model and data would be fetched; exit code, the plan it goes by, its environment."""
    seen: list[Plan] = []
    environment: dict[str, str] = {}

    def go_on(plan: Plan, *_: object) -> Plan:
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

    def begin(*arguments: str) -> tuple[int, list[Plan], dict[str, str]]:
        given = ["conf=r256_instruct", f"run.folder={tmp_path}", "dashboard.port=0"]
        return main([*given, *arguments]), seen, environment

    return begin


@pytest.mark.parametrize(("cards", "shares"), [("a", [0.58, 0.37]), ("ab", [1.0, 1.0])])
def test_one_gpu_is_shared_and_of_two_each_side_has_one(
    cards: str, shares: list[float], nvidia_smi: Install, start: Start
) -> None:
    nvidia_smi("".join(A40.format(number, name, 45600) for number, name in enumerate(cards)))
    code, (plan,), environment = start()
    assert code == 0
    assert [share.gpus for share in (*plan.placement.rollouts, *plan.placement.learners)] == shares
    visible = "0,1"[: 2 * len(cards) - 1]
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == (visible, "PCI_BUS_ID")
    assert "CUDA_MPS_PIPE_DIRECTORY" not in environment


def test_a_run_records_what_is_planned_without_mps_where_no_client_works(
    nvidia_smi: Install, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[float] = []
    plans: list[Plan] = []

    def prepare(plan: Plan, *given: Any) -> Plan:
        plans.append(plan)
        expected.append(given[3].update_s)
        return plan

    @contextmanager
    def service(config: Config, _: str) -> Iterator[tuple[Config, str]]:
        yield changed(config, {"run.nvidia_mps": ways.pop()}), ""

    nvidia_smi(A40.format(0, "a", 45600))
    monkeypatch.setattr(run, "prepare", prepare)
    monkeypatch.setattr(preparation, "mps_service", service)
    ways = ["off", "on"]
    while ways:
        way = ways[-1]
        assert start()[0] == 0
        assert (plans[-1].asked.run.nvidia_mps, plans[-1].config.run.nvidia_mps) == (way, way)
    assert expected[0] < expected[1]


def test_sharing_is_tried_under_mps_once_a_killed_run_has_left_the_gpu(
    nvidia_smi: Install, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(A40.format(0, "a", 45600))
    (tmp_path / "r256_instruct").mkdir()
    done: list[str] = []

    @contextmanager
    def service(config: Config, _: str) -> Iterator[tuple[Config, str]]:
        done.append("served")
        yield config, ""

    def tried(*_: Any) -> str:
        done.append(f"tried on {os.environ['CUDA_VISIBLE_DEVICES']}")
        return "no IPC"

    monkeypatch.setattr(run, "take_over", lambda *_: done.append("cleared"))
    monkeypatch.setattr(preparation, "not_shared", tried)
    monkeypatch.setattr(preparation, "mps_service", service)
    code, (plan,), _ = start()
    assert code == 0
    assert done[:3] == ["cleared", "served", "tried on 0"]
    assert (plan.asked.model.shared_weights, plan.placement.weights) == ("off", None)


@pytest.mark.parametrize(("free", "engine"), [(45600, 0.58), (41000, 0.52), (36000, 0.41)])
def test_an_engine_leaves_room_for_other_processes(free: int, engine: float, nvidia_smi: Install, start: Start) -> None:
    nvidia_smi(A40.format(0, "a", free))
    code, (plan,), _ = start()
    assert code == 0
    assert (plan.placement.rollouts[0].memory, plan.placement.learners[0].memory) == (engine, 0.37)


@pytest.mark.parametrize(
    ("table", "visible", "arguments", "said"),
    [
        (A40.format(0, "a", 20000), None, [], "GPU 0, NVIDIA A40, has 19.5 GiB of 44.6 GiB free"),
        (DIVIDED, None, [], "GPU 0, NVIDIA H100 80GB HBM3, is divided by MIG"),
        (EXCLUSIVE, None, [], "-c 0, or give run.nvidia_mps=on"),
        (DIVIDED, "MIG-377e0049", [], "CUDA_VISIBLE_DEVICES=MIG-377e0049"),
        (A40.format(0, "a", 45600), None, ["run.nvidia_mps=on"], "no nvidia-cuda-mps-control"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_refused_in_one_line(
    table: str, visible: str | None, arguments: list[str], said: str, nvidia_smi: Install, start: Start, refused: Any
) -> None:
    nvidia_smi(table)
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    complaint = refused(lambda given: start(*given)[0], arguments)
    assert said in complaint


def test_an_engine_on_a_gpu_has_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "2"})
    set_environment(Share(gpus=0.45, memory=0.45, threads=2), 2)
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert not [name for name in os.environ if name.startswith("VLLM_CPU")]
    assert gpu_settings(Share(gpus=0.45, memory=0.45), None) == {"gpu_memory_utilization": 0.45}
    assert gpu_settings(Share(gpus=0.45, memory=0.45), 5000)["num_gpu_blocks_override"] == 5000


@pytest.mark.parametrize("mps", [False, True])
@pytest.mark.parametrize("gpus", [0.5, 1.0, 0.0])
def test_a_learner_has_its_environment(mps: bool, gpus: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    given = "run.nvidia_mps_percentage=90", f"run.nvidia_mps={'on' if mps else 'off'}"
    config = load(["conf=r8_instruct", *given])
    LearnerActor(config, "", Share(gpus=gpus, memory=gpus, threads=4), "")
    assert os.environ["DS_ACCELERATOR"] == ("cuda" if gpus else "cpu")
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    limited = os.environ.get("CUDA_MPS_CLIENT_PRIORITY"), os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
    assert limited == (("1", "90") if mps and gpus == 0.5 else (None, None))


@pytest.mark.parametrize("gpu", ["A40", "L4"])
def test_the_tests_for_a_gpu_fit_one(gpu: str) -> None:
    made = plan_of(machine(gpu))
    assert made.fits
    assert made.placement.weights is None
    shared = changed(settings(machine(gpu)), {"model.shared_weights": "on", "lora.rank": 8, "lora.alpha": 16})
    assert make_plan(shared, machine(gpu)).fits

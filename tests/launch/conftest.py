"""A stand-in for NVIDIA's driver, a trained run, sweeps without real runs, and calls with bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

MIB = 2**20

RESERVED = 400 * MIB
"""Memory that the driver keeps for itself on every GPU."""


class Nvml(ModuleType):
    """The answers of pynvml for the GPUs of a table; the handle of a GPU is its row."""

    NVML_DEVICE_MIG_ENABLE = 1
    NVML_COMPUTEMODE_PROHIBITED = 2
    NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3
    NVMLError = type("NVMLError", (Exception,), {})
    NVMLError_NotSupported = type("NVMLError_NotSupported", (NVMLError,), {})
    NVMLError_NoPermission = type("NVMLError_NoPermission", (NVMLError,), {})
    NVMLError_GpuIsLost = type("NVMLError_GpuIsLost", (NVMLError,), {})
    NVMLError_LibraryNotFound = type("NVMLError_LibraryNotFound", (NVMLError,), {})

    def __init__(self, table: str) -> None:
        super().__init__("pynvml")
        rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
        version = next((row[6] for row in rows if len(row) > 6), "580.65.06")
        self.nvmlMemory_v2 = 0x02000028
        self.nvmlInit = self.nvmlShutdown = lambda: None
        self.nvmlSystemGetDriverVersion = lambda: version
        self.nvmlDeviceGetCount = lambda: len(rows)
        self.nvmlDeviceGetHandleByIndex = rows.__getitem__
        self.nvmlDeviceGetUUID = lambda row: row[1]
        self.nvmlDeviceGetName = lambda row: row[2]
        self.nvmlDeviceGetMemoryInfo = lambda row, version: SimpleNamespace(
            total=self._mib(row[3]), reserved=RESERVED, free=self._mib(row[4])
        )
        self.nvmlDeviceGetMigMode = lambda row: [self._known(row[5]) == "Enabled", False]
        self.nvmlDeviceGetCudaComputeCapability = lambda row: tuple(map(int, (row[7:] or ["8.6"])[0].split(".")))

        self.NVML_CLOCK_SM, self.NVML_CLOCK_MEM = 1, 2
        self.nvmlDeviceGetMaxClockInfo = lambda row, clock: self._known("[N/A]")
        self.nvmlDeviceGetComputeMode = lambda row: {"Prohibited": 2, "Exclusive_Process": 3}.get(row[-1], 0)

    def _mib(self, cell: str) -> int:
        return int(self._known(cell)) * MIB

    def _known(self, cell: str) -> str:
        if cell == "[N/A]":
            raise self.NVMLError_NotSupported("Not Supported")
        return cell


@pytest.fixture(autouse=True)
def no_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's NVIDIA MPS, by which `run.nvidia_mps=auto` decides."""
    monkeypatch.setattr("microbudget_rl.launch.hardware.machine.MPS_TOOL", "nvidia-cuda-mps-control-of-no-driver")


@pytest.fixture
def nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Nvml]:
    """Make NVML show the GPUs of a table in nvidia-smi's words: index, uuid, name, memory and free memory in MiB, MIG
    mode, and optionally the driver's version, compute capability and compute mode. All GPUs are visible.
    """
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # a value set in the test ends with it
        monkeypatch.delenv(name)

    def install(table: str) -> Nvml:
        monkeypatch.setitem(sys.modules, "pynvml", nvml := Nvml(table))
        return nvml

    return install


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a run whose policy, an adapter, can be used."""
    from tests.trained_runs import write_trained

    return write_trained(tmp_path / "runs" / "mine", tiny_model)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call a command's `main` with bad input: its exit code is 2. Return its one line."""

    def call(main: Callable[[list[str]], int], arguments: list[str]) -> str:
        capsys.readouterr()
        try:
            code: object = main(arguments)
        except SystemExit as left:  # beside a Ray that is starting
            code = left.code
        assert code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return call


@pytest.fixture
def sweeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a sweep in this process. conduct: what becomes of which run."""
    from microbudget_rl.launch.sweep import main
    from tests.launch.sweep_runs.stand_ins import command, write_programs

    monkeypatch.setattr("microbudget_rl.launch.sweep_runs.scheduler.POLL_S", 0.01)
    monkeypatch.setattr("microbudget_rl.launch.sweep_runs.scheduler.PROGRAMS", tmp_path)
    write_programs(tmp_path)

    def run(*arguments: str, **conduct: dict[str, Any]) -> int:
        (tmp_path / "conduct.json").write_text(json.dumps(conduct))
        return main(command(tmp_path, *arguments))

    return run

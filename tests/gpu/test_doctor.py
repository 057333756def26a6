"""The doctor under NVIDIA's MPS, on the first GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.checkup.measurement import PERCENTAGES, STALENESS
from launch.hardware.mps import TOOL
from tests.gpu.conftest import first_gpu

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_each_percentage_of_the_multiprocessors_is_measured_and_settings_are_printed(tmp_path: Path) -> None:
    if not shutil.which(TOOL):
        pytest.skip(f"there is no {TOOL} here")
    command = [sys.executable, str(ROOT / "launch" / "doctor.py"), "conf=quickstart", f"run.folder={tmp_path}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": first_gpu()}
    done = subprocess.run([*command, "run.nvidia_mps=on"], env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    for percentage in PERCENTAGES:
        for most in STALENESS:
            assert f"learner.max_staleness={most} run.nvidia_mps_percentage={percentage}:" in done.stdout

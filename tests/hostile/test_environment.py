"""A plan needs nothing of its environment: no home folder, no UTF-8, no temporary folder, no sensible terminal."""

import os
import subprocess
import sys

import pytest

ODD = [
    {"HOME": None, "XDG_CACHE_HOME": None},
    {"HOME": "/none", "XDG_CACHE_HOME": "/none", "TMPDIR": "/none"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    {"COLUMNS": "abc", "TERM": "\x1b", "RAY_ADDRESS": "x:y", "OMP_NUM_THREADS": "x", "CUDA_VISIBLE_DEVICES": "["},
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: " ".join(odd))
def test_plan_in_an_odd_environment(odd: dict[str, str | None]) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in odd}
    environment |= {key: value for key, value in odd.items() if value is not None}
    command = [sys.executable, "-m", "launch.run", "conf=instruct", "plan=true", "device=cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")

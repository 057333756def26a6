"""How this suite is spread over the workers of pytest-xdist."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def test_crash_of_a_worker_ends_the_suite_with_a_failure() -> None:
    Path("test_heavy.py").write_text("import os\ndef test_crash(): os._exit(1)\ndef test_after(): pass\n")
    for name in "ab":
        Path(f"test_{name}.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "2"]
    run = subprocess.run([*command, "."], stdout=subprocess.PIPE, text=True, timeout=300)
    assert run.returncode == 1, run.stdout
    assert "test_heavy.py::test_crash" in run.stdout

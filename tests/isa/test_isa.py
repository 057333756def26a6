"""Instructions that are hidden from a process."""

import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.isa.sitecustomize import HIDDEN

REPORT = """
import json, torch
from pathlib import Path
from microbudget_rl.launch.hardware.machine import detect
words = [line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")]
names = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
print(json.dumps([sorted(names), words[0], torch.backends.cpu.get_cpu_capability(), detect("cpu").dtype]))
"""


@cache
def seen(isa: str) -> list[Any]:
    path = os.pathsep.join([str(ROOT / "tests" / "isa"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "TEST_ISA": isa}
    return json.loads(subprocess.check_output([sys.executable, "-c", REPORT], env=environment))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are instructions of x86")
@pytest.mark.parametrize("isa", HIDDEN)
def test_only_these_instructions_are_hidden(isa: str):
    def left(names: list[str]) -> list[str]:
        return [name for name in names if not re.match(HIDDEN[isa], name)]

    (names, words, _, _), (own_names, own_words, capability, dtype) = seen(""), seen(isa)
    assert own_names == left(names)
    assert own_words == left(words)
    assert isa != "avx2" or capability != "AVX512"
    assert dtype == "float32"  # of model.dtype=auto

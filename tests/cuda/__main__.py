"""Ask the CUDA builds of our libraries, without a GPU, about a run on one: `bash launch/test.sh cuda [part …]`.

It prints one row per check, and ends with code 1 if one is wrong. Nothing of it computes on a GPU.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.metadata import version
from typing import Any

from tests.conftest import ROOT
from tests.cuda.absent import driver

CASES = {
    "A100-40": 104,
    "A100-80": 102,
    "A40": 103,
    "A10": 115,
    "RTX3060": 120,
    "RTX3060Ti": 119,
    "RTX3090": 111,
    "L4": 112,
    "L40S": 103,
    "RTX4060Ti": 107,
    "RTX4090": 112,
    "H100": 102,
    "RTX5090": 103,
    "packages": 61,
    "breaks": 19,
}
"""Parts with the number of their cases: the engine's configuration on each GPU (each recipe, and each start of an
engine or a holder of weights in it), and two modules beside this one."""

AT_ONCE = 2
"""Processes at a time: each takes up to 4 GiB."""

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "0",
    "DS_ACCELERATOR": "cuda",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


def answers(part: str, library: str) -> list[dict[str, Any]]:
    """Run a part in a process of its own, with a driver's library that knows of no device."""
    began = time.monotonic()
    module, argument = (part, "") if part in ("packages", "breaks") else ("engines", repr(part))
    program = f"from tests.cuda.{module} import ask; ask({argument})"
    environment = os.environ | ENVIRONMENT | {"LD_PRELOAD": library, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    print(f"{part}: {len(found)} cases in {time.monotonic() - began:.0f} s", flush=True)
    complete = (done.returncode, len(found)) == (0, CASES[part])
    fault = "" if complete else f"{len(found)} cases, not {CASES[part]}, code {done.returncode}: {done.stderr[-300:]}"
    return [*found, {"check": "all cases", "name": part, "fault": fault}]


def table(found: list[dict[str, Any]]) -> str:
    checks = defaultdict[str, list[str]](list)
    for each in found:
        checks[each["check"]].append(each["fault"] and f"{each['name']}: {each['fault']}")
    lines = ["| check | cases | passed | failed | first failures |", "|---|---|---|---|---|"]
    for check, faults in checks.items():
        wrong = [" ".join(fault.replace("|", "/").split())[:200] for fault in faults if fault]
        lines.append(
            f"| {check} | {len(faults)} | {len(faults) - len(wrong)} | {len(wrong)} | {'; '.join(wrong[:3])} |"
        )
    return "\n".join(lines)


def main(wanted: list[str]) -> int:
    if unknown := {*wanted} - {*CASES}:
        print(f"test: {', '.join(unknown)}: give some of {', '.join(CASES)}, or nothing", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as processes:
        library = driver(folder)
        found = [each for some in processes.map(lambda part: answers(part, library), wanted or CASES) for each in some]
    builds = ", ".join(f"{name} {version(name)}" for name in ("torch", "vllm", "triton", "liger-kernel", "deepspeed"))
    took = f"{time.monotonic() - began:.0f} s on {len(os.sched_getaffinity(0))} cores"
    print(f"\n{datetime.now():%Y-%m-%d}, Python {sys.version.split()[0]}, {builds}: {took}\n\n{table(found)}")
    return int(any(each["fault"] for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

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

from microbudget_rl.conf.catalogue import devices
from tests.conftest import ROOT
from tests.cuda.absent import CARDS, driver

PARTS = {
    "engines": [name for names in CARDS.values() for name in names if name in devices()],
    "packages": [""],
}
"""Modules beside this one, and the argument of each of their processes."""

AT_ONCE = 2
"""Processes at a time: each takes up to 4 GiB."""

ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "0", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def answers(part: str, argument: str | int, library: str) -> list[dict[str, Any]]:
    """Run a part in a process of its own, with a driver's library that knows of no device."""
    began = time.monotonic()
    program = f"from tests.cuda.{part} import ask; ask({argument and repr(argument)})"
    environment = os.environ | ENVIRONMENT | {"LD_PRELOAD": library, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    if done.returncode or not found:
        found.append({"check": part, "name": argument, "fault": f"code {done.returncode}: {done.stderr[-300:]}"})
    print(f"{part} {argument}: {len(found)} answers in {time.monotonic() - began:.0f} s", flush=True)
    return found


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
    if unknown := {*wanted} - {*PARTS}:
        print(f"test: {', '.join(unknown)}: give some of {', '.join(PARTS)}, or nothing", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as processes:
        library = driver(folder)
        asked = [(part, argument) for part in wanted or PARTS for argument in PARTS[part]]
        found = [each for part in processes.map(lambda each: answers(*each, library), asked) for each in part]
    builds = ", ".join(f"{name} {version(name)}" for name in ("torch", "vllm", "triton", "liger-kernel", "deepspeed"))
    took = f"{time.monotonic() - began:.0f} s on {len(os.sched_getaffinity(0))} cores"
    print(f"\n{datetime.now():%Y-%m-%d}, Python {sys.version.split()[0]}, {builds}: {took}\n\n{table(found)}")
    return int(any(each["fault"] for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

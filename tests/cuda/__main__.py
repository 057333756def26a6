"""Ask the CUDA builds of our libraries, without a GPU, about a run on one: `bash launch/test.sh cuda [part …]`.

It prints each fault and one row per check, and ends with code 1 if one is wrong. Nothing of it computes on a GPU.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.metadata import version
from typing import Any

from tests.conftest import ROOT
from tests.cuda.absent import CARDS, driver
from tests.test_private_apis import ROWS

CASES = {card: cases for card, (_, cases) in CARDS.items()} | {"packages": 10 + len(ROWS)}
"""Parts with the number of their cases: the engine's configuration on each GPU (each recipe, and each start of an
engine or a holder of weights in it), and the module beside this one."""

ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "0", "DS_ACCELERATOR": "cuda", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def answers(part: str, library: str) -> list[dict[str, Any]]:
    """Run a part in a process of its own, with a driver's library that knows of no device."""
    began = time.monotonic()
    module, argument = (part, "") if part == "packages" else ("engines", repr(part))
    program = f"from tests.cuda.{module} import ask; ask({argument})"
    environment = os.environ | ENVIRONMENT | {"LD_PRELOAD": library, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    print(f"{part}: {len(found)} cases in {time.monotonic() - began:.0f} s", flush=True)
    complete = (done.returncode, len(found)) == (0, CASES[part])
    fault = "" if complete else f"{len(found)} cases, not {CASES[part]}, code {done.returncode}: {done.stderr[-300:]}"
    found.append({"check": "all cases", "name": part, "fault": fault})
    for each in found:
        if each["fault"]:
            print(f"{each['check']}, {each['name']}: {each['fault'][:300]}", flush=True)
    return found


def main(wanted: list[str]) -> int:
    if unknown := {*wanted} - {*CASES}:
        print(f"test: {', '.join(unknown)}: give some of {', '.join(CASES)}, or nothing", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as processes:  # 4 GiB each
        library = driver(folder)
        found = [each for some in processes.map(lambda part: answers(part, library), wanted or CASES) for each in some]
    builds = ", ".join(f"{name} {version(name)}" for name in ("torch", "vllm", "triton", "liger-kernel", "deepspeed"))
    took = f"{time.monotonic() - began:.0f} s on {len(os.sched_getaffinity(0))} cores"
    print(f"\n{datetime.now():%Y-%m-%d}, Python {sys.version.split()[0]}, {builds}: {took}\n")
    print("| check | cases | failed |\n|---|---|---|")
    for check in dict.fromkeys(each["check"] for each in found):
        faults = [each["fault"] for each in found if each["check"] == check]
        print(f"| {check} | {len(faults)} | {sum(map(bool, faults))} |")
    return int(any(each["fault"] for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

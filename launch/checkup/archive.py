"""The doctor's archive: all that a machine and a recipe have to tell, in one file. No phase stops the others."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import psutil
from rich.console import Console

from microbudget_rl.actors.runtime.process import leave_mps
from microbudget_rl.actors.runtime.ray_session import clear_session, session_logs
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import anonymous, in_brief
from microbudget_rl.conf.installation import ROOT
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.checkup.findings import Finding, State
from microbudget_rl.launch.hardware.gpus import find_gpus
from microbudget_rl.launch.hardware.machine import GIB

LARGEST, CHARACTERS = 2_000_000, 4_000_000
"""Most bytes of the archive, and most characters in it, which gzip packs to less than half."""

ENVIRONMENT = ("CUDA_", "NCCL_", "PYTORCH_", "VLLM_", "RAY_", "OMP_")
"""Beginnings of the names of environment variables that are told."""

UPDATES = 3
SHORT = (
    *("run.name=short", f"budget.updates={UPDATES}", "run.overwrite=false", "warm_start.source="),
    *("eval.problems=16", "eval.n=1", "eval.benchmarks=[]", "validation.every=0", "validation.patience=0"),
    *("run.report_to=[]", "checkpoint.copy=", "run.on_end="),  # nothing leaves or ends the machine
)
"""Settings of the runs."""

MINUTES = {"run": 9, "kill": 4}
"""Budgets of the two runs. The second finds compiled kernels."""

BRIEF = 128
"""Most tokens of a response in the second run: it only has to go on."""

TOLD = ("metrics.jsonl", "events.jsonl", "summary.json", "failure.log", "report.md")
"""Files of the run that are told: none with problems, responses or private settings."""


class Archive:
    """Files by name, written as one at the end of every phase. console: records its lines."""

    def __init__(self, path: Path, console: Console) -> None:
        self.path, self.console = path, console
        self.files = dict[str, str]()
        self.failed = False

    def show(self, name: str, state: State, text: str) -> None:
        self.console.print(Finding(name, state, text).line, soft_wrap=True)
        self.failed |= state == "bad"

    @contextlib.contextmanager
    def phase(self, name: str, worst: State = "bad") -> Iterator[None]:
        """Turn an error of a phase into a line of this state and a file."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:  # whatever it is, the other phases have something to tell
            self.show(name, worst, f"failed: {in_brief(error)}")
            self.files[f"{name}-error.txt"] = "".join(traceback.format_exception(error))
        self.console.print(f"{name}: {time.monotonic() - began:.0f} s")
        self.files["screen.txt"] = self.console.export_text(clear=False)
        self.write()

    def add(self, under: str, *paths: Path | None) -> None:
        """Add files, and those in folders, that exist."""
        for path in filter(None, paths):
            with contextlib.suppress(OSError):  # a run deletes its logs at its end
                for file in path.iterdir() if path.is_dir() else [path]:
                    if file.is_file():
                        self.files[f"{under}/{file.name}"] = file.read_text(errors="replace")

    def write(self) -> None:
        """Write the ends of all files, without what names a person or the machine."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.path, "w:gz") as tar:
            most = CHARACTERS // len(self.files)
            for name, text in self.files.items():
                end = text if len(text) <= most else text[-most:].partition("\n")[2]  # half a secret is not replaced
                content, member = anonymous(end).encode(errors="replace"), tarfile.TarInfo(f"doctor/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def describe_host(archive: Archive) -> None:
    """Add the driver's own words, the environment, and the packages."""
    if shutil.which("nvidia-smi"):
        asked = subprocess.run(["nvidia-smi", "-q"], capture_output=True, text=True, timeout=60)
        archive.files["nvidia-smi.txt"] = asked.stdout + asked.stderr
    allowed = (f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT))
    archive.files["environment.txt"] = "\n".join(allowed)
    installed = (f"{each.name}=={each.version}" for each in metadata.distributions())
    archive.files["packages.txt"] = "\n".join(sorted(installed))


def carry_out_run(archive: Archive, settings: Sequence[str], brief: int = 0) -> None:
    """Make a few updates of the recipe in a temporary folder. brief: if not 0, of responses up to so many tokens, and
    kill -9 an engine after the first update. A run that does not recover from this is a warning.
    """
    name = "kill" if brief else "run"
    with scratch_folder("doctor-", archive.path.parent) as scratch:
        shortened = [*SHORT, f"budget.minutes={MINUTES[name]}", f"run.folder={scratch}"]
        if brief:
            shortened += [f"rollout.max_response_tokens={brief}", "eval.max_response_tokens=null"]
        keys = {setting.partition("=")[0] for setting in (*shortened, "budget.hours=")}
        kept = [setting for setting in settings if setting.partition("=")[0] not in keys]
        run, output, killed, used = RunRecord(scratch / "short"), scratch / "output.log", False, 0
        command = [sys.executable, str(ROOT / "launch/run.py"), *kept, *shortened]
        with output.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
            while (code := process.poll()) is None:
                time.sleep(0.5)
                archive.add(name, output, session_logs(run.path))  # a run that succeeds deletes its logs
                used = max(used, sum(gpu.memory - (gpu.free or 0) for gpu in find_gpus()))
                killed = killed or (brief > 0 and run.updates > 0 and kill_engine(process.pid))
        archive.add(name, output, session_logs(run.path), *(run.path / file for file in TOLD))
        clear_session(run.path)
        rows, restarts = run.rows(), sum(event.kind is EventKind.RESTARTED for event in run.events())
    good = not code and len(rows) == UPDATES and bool(restarts) == bool(brief)
    state: State = "good" if good else "bad" if code and not brief else "warning"
    text = f"exit code {code}, {len(rows)} of {UPDATES} updates, engines killed: {killed:d}, restarted: {restarts}"
    end = f"; {' '.join(archive.files[f'{name}/output.log'].split()[-50:])}" if code else ""
    archive.show(name, state, text + end)
    if brief:
        return
    peak = rows[-1].metrics.get("learner/peak_memory", 0.0) if rows else 0.0
    archive.show("memory", "good", f"at most {used / GIB:.2f} GiB used on all GPUs, {peak / GIB:.2f} by the learner")
    for line in "\n".join(archive.files.values()).splitlines():
        if line.startswith("adapter check at the start"):  # its distances
            archive.show("log", "good", line)


def kill_engine(run: int) -> bool:
    """Kill -9 the first engine among the processes of a run, as a run does. Return whether there was one."""
    for process in psutil.Process(run).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::RolloutAct"):  # the kernel keeps 15 characters
                leave_mps(process.pid, process.environ())
                with contextlib.suppress(psutil.NoSuchProcess):  # it may end with its work on the GPU
                    process.kill()
                return True
    return False

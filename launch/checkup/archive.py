"""The doctor's archive: all that a machine and a recipe have to tell, in one file. No phase stops the others."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil
from rich.console import Console

from microbudget_rl.actors.runtime.host_resources import CONTROL_GROUPS, SHARED_MEMORY
from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.actors.runtime.ray_session import ACTORS, clear_session, session_logs
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import anonymous, in_brief
from microbudget_rl.conf.installation import ROOT
from microbudget_rl.conf.load import flatten
from microbudget_rl.conf.schema import among, marked
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.checkup.findings import Finding, State
from microbudget_rl.launch.hardware.gpus import find_gpus
from microbudget_rl.launch.hardware.machine import GIB
from microbudget_rl.launch.plan.plan import Plan

ALL_S, RUN_S, END_S = 840.0, 300.0, 30.0
"""Seconds of all phases, how many of them are kept for the run, and how many the run gets to end."""

LARGEST, TAIL = 2_000_000, 200_000
"""Most bytes of the archive, and most characters of a file in it, its last ones: fewer if it is too large."""

ENVIRONMENT = ("CUDA_", "NCCL_", "PYTORCH_", "VLLM_", "RAY_", "OMP_")
"""Beginnings of the names of environment variables that are told."""

DISK_BYTES = 2**28
"""Bytes written to measure the disk of the runs."""

UPDATES = 3
SHORT = (
    *("run.name=short", f"budget.updates={UPDATES}", "eval.problems=16", "eval.n=1", "eval.benchmarks=[]"),
    *("validation.every=0", "validation.patience=0", "warm_start.source=", "run.overwrite=false"),
    *("run.report_to=[]", "run.restore=", "checkpoint.remote=", "run.on_end="),  # nothing leaves or ends the machine
)
"""Settings of the run."""

TOLD = ("metrics.jsonl", "events.jsonl", "summary.json", "failure.log", "report.md")
"""Files of the run that are told: none with problems, responses or private settings."""

TELLING = re.compile(r"adapter check at .*|.* nats, rounding .*|(?<=\] ).*(?: took |KV cache size).*")
"""Pattern of the lines of actors' logs that are shown: distances, differences, seconds and sizes of a start."""

MOST_LINES = 10
"""Most of these lines."""

ENGINE = "ray::RolloutAct"
"""Name of an engine's process."""


class Archive:
    """Files by name, written as one at the end of every phase."""

    def __init__(self, path: Path, console: Console) -> None:
        """console: records its lines. planned: GiB by place."""
        self.path, self.console = path, console
        self.files = dict[str, str]()
        self.planned = dict[str, float]()
        self.failed = False
        self._until = time.monotonic() + ALL_S

    @property
    def left_s(self) -> float:
        return self._until - time.monotonic()

    def show(self, name: str, state: State, text: str) -> None:
        self.console.print(Finding(name, state, text).line, soft_wrap=True)
        self.failed |= state == "bad"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Turn an error of a phase into a line and a file."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:  # whatever it is, the other phases have something to tell
            self.show(name, "bad", f"failed: {in_brief(error)}")
            self.files[f"{name}-error.txt"] = "".join(traceback.format_exception(error))
        self.files[f"{name}-seconds.txt"] = f"{time.monotonic() - began:.1f}"
        self.files["screen.txt"] = self.console.export_text(clear=False)
        self.write()

    def add_logs(self, under: str, *logs: Path | None) -> None:
        """Add the ends of files, or of those in a folder, that exist."""
        for log in logs:
            if log and log.is_dir():
                self.add_logs(under, *(file for file in log.iterdir() if file.is_file()))
            elif log and log.exists():
                with log.open("rb") as file:
                    file.seek(max(log.stat().st_size - TAIL, 0))
                    self.files[f"{under}/{log.name}"] = file.read(TAIL).decode(errors="replace")

    def write(self) -> None:
        files, content, tail = {name: anonymous(text) for name, text in self.files.items()}, b"", TAIL
        while not content or len(content) > LARGEST:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as tar:
                for name, text in files.items():
                    data, member = text[-tail:].encode(errors="replace"), tarfile.TarInfo(f"doctor/{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            content, tail = packed.getvalue(), tail // 2
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)

    def add_plan(self, plan: Plan) -> None:
        """Add a plan as JSON, without private settings."""
        own = {key: value for key, value in flatten(asdict(plan.config)).items() if not among(key, marked("private"))}
        self.planned = {place: round(plan.needed(place) / GIB, 2) for place in plan.available}
        facts = {name: asdict(plan)[name] for name in ("machine", "placement", "memory", "calibration")}
        facts |= {"settings": own, "estimate": plan.estimate and asdict(plan.estimate)}
        self.files["plan.json"] = json.dumps(facts, indent=1, default=str)


def describe_host(archive: Archive, build: str) -> None:
    """Tell the driver's own words, the environment, packages that are not as in the lock, limits, and the disk's speed.

    build: the name of the lock.
    """
    import torch

    if shutil.which("nvidia-smi"):
        asked = subprocess.run(["nvidia-smi", "-q"], capture_output=True, text=True, timeout=60)
        archive.files["nvidia-smi.txt"] = asked.stdout + asked.stderr
    allowed = (f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT))
    archive.files["environment.txt"] = "\n".join(allowed)
    lock = ROOT / f"launch/locks/{build}.txt"
    wanted = re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text() if lock.is_file() else "", re.MULTILINE)
    own = {re.sub(r"[-_.]+", "-", each.name).lower(): each.version for each in metadata.distributions()}
    archive.files["packages.txt"] = "\n".join(f"{name}=={own[name]}" for name in sorted(own))
    other = [f"{name} {own[name]}" for name, locked in wanted if own.get(name, locked).partition("+")[0] != locked]
    archive.show("lock", "good", f"{len(own)} packages; of other versions: {', '.join(other) or 'none'}")
    archive.show("torch", "good", f"has code for {', '.join(torch.cuda.get_arch_list()) or 'CPUs'}")
    limits = [CONTROL_GROUPS / name for name in ("cpu.max", "memory.max", "pids.max")]
    groups = "".join(f", {file.name} {file.read_text().strip()}" for file in limits if file.is_file())
    archive.path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder("doctor-", archive.path.parent) as scratch, (scratch / "written").open("wb") as written:
        began = time.monotonic()
        written.write(os.urandom(2**20) * (DISK_BYTES // 2**20))
        os.fsync(written.fileno())
        rate = DISK_BYTES / 1e6 / (time.monotonic() - began)
    shared = shutil.disk_usage(SHARED_MEMORY).total / GIB
    text = f"{os.cpu_count()} cores, /dev/shm {shared:.1f} GiB{groups}; the disk of the runs writes {rate:.0f} MB/s"
    archive.show("host", "good", text)


def carry_out_run(archive: Archive, settings: Sequence[str]) -> None:
    """Make a few updates of the recipe in a temporary folder, and kill -9 the engine after the first."""
    with scratch_folder("doctor-", archive.path.parent) as scratch:
        own = [*SHORT, f"run.folder={scratch}", f"budget.minutes={(archive.left_s - END_S) / 60:.2f}"]
        keys = {setting.partition("=")[0] for setting in (*own, "budget.hours=")}
        own += [setting for setting in settings if setting.partition("=")[0] not in keys]
        run, output, killed, memory = RunRecord(scratch / "short"), scratch / "output.log", False, dict[str, float]()
        with output.open("wb") as file:
            command, end = [sys.executable, str(ROOT / "launch/run.py"), *own], partial(end_with, os.getpid())
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, preexec_fn=end)
        try:
            while process.poll() is None and archive.left_s > 0:
                time.sleep(0.5)
                archive.add_logs("run-logs", session_logs(run.path))  # a run that succeeds deletes them
                killed |= look_at_actors(process.pid, memory, kill=run.updates > 0 and not killed)
            process.terminate()
            code = process.wait(END_S)
        finally:
            process.kill()
            archive.add_logs("run", output, *(run.path / name for name in TOLD))
            archive.add_logs("run-logs", session_logs(run.path))
            clear_session(run.path)
        restarts, rows = sum(event.kind is EventKind.RESTARTED for event in run.events()), run.rows()
        row = rows[-1].metrics if rows else {}
        healed = f"{restarts} restarts after kill -9 of the engine" if killed else "no engine was killed"
        state: State = "bad" if code else "good" if len(rows) == UPDATES and restarts else "warning"
        last = "".join(output.read_text(errors="replace").splitlines()[-1:])
        archive.show("run", state, f"exit code {code}, {len(rows)} of {UPDATES} updates, {healed}; {last}")
        peak, off = (row.get(name, 0.0) for name in ("learner/peak_memory", "adapter_check/disagreement"))
        text = f"GiB planned {archive.planned}, used {memory}, at the learner's peak {peak / GIB:.2f}"
        archive.show("memory", "good", text)
        archive.show("engine against learner", "good", f"mean |Δ log p| {off:.4f}")
        texts = (text for name, text in archive.files.items() if name.startswith("run-logs/worker"))
        for line in [line for text in texts for line in TELLING.findall(text)][:MOST_LINES]:
            archive.show("log", "good", line)


def look_at_actors(run: int, memory: dict[str, float], kill: bool) -> bool:
    """Note the most GiB that were used on all GPUs, by anybody, and of the host's memory by each actor of a run. Return
    whether its engine was killed, if asked for. The kernel keeps 15 characters of an actor's name.
    """
    used, killed = {"GPU": float(sum(gpu.memory - (gpu.free or 0) for gpu in find_gpus()))}, False
    for process in psutil.Process(run).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if (name := process.name()).startswith(ACTORS):
                used[name[5:15]] = process.memory_info().rss
            if kill and name.startswith(ENGINE):
                process.kill()
                killed = True
    memory |= {name: max(round(count / GIB, 2), memory.get(name, 0.0)) for name, count in used.items()}
    return killed

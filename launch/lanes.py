"""Runs side by side: a part of the machine each, and one process of `launch/run.py` at a time."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actors.post_mortem import describe_status
from conf.schema import Config
from launch.failure import read
from launch.machine import Machine
from launch.plan import Plan, make_plan

RUN = (sys.executable, str(Path(__file__).with_name("run.py")))

CORES = 8
"""Processor cores of a lane at least, where there is no card: runs side by side on fewer would each be slower, and no
more would be done in all."""

STATUS = {130: "interrupted", 143: "interrupted", 3: "halted"}
"""How a run stands after an exit code; failed after any other but 0."""

PR_SET_PDEATHSIG = 1


class Lane:
    """A part of the machine on which one cell runs at a time. cores: their ids. card: for CUDA_VISIBLE_DEVICES, None
    for all there are.
    """

    def __init__(self, cores: Sequence[int], card: str | None = None, command: Sequence[str] = RUN) -> None:
        self._cores = cores
        self._card = card
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()

    def start(self, arguments: Sequence[str], log: Path) -> None:
        """Start a run; what it says is appended to the log.

        It has a session of its own, so that Ctrl-C reaches it through `signal` alone, and is told to end, as by
        SIGTERM, if this process dies.
        """
        environment = os.environ if self._card is None else {**os.environ, "CUDA_VISIBLE_DEVICES": self._card}
        libc, parent, self._log = ctypes.CDLL(None), os.getpid(), log

        def settle() -> None:
            os.sched_setaffinity(0, self._cores)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(128 + signal.SIGTERM)

        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=settle,  # safe, since this process has one thread
            )

    @property
    def busy(self) -> bool:
        return self._process is not None

    def signal(self, number: int) -> None:
        """Pass a signal on to the run, if there is one."""
        if self._process is not None:
            self._process.send_signal(number)

    def ended(self, folder: Path) -> tuple[str, str | None] | None:
        """Status and reason of the run, once it is over; folder: its own."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        summary = read(folder / "summary.json")
        if code == 0 and summary:
            return summary["status"], summary["reason"]
        if summary and STATUS.get(code, "failed") == summary["status"]:
            return summary["status"], summary["reason"]
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        words = said[-1].removeprefix("run.py: ") if said and code > 0 else describe_status(code)
        return STATUS.get(code, "failed"), words


def lanes(configs: Sequence[Config], plans: Sequence[Plan], command: Sequence[str] = RUN) -> list[Lane]:
    """As many lanes as the plans' machine has room for. configs: what the plans are of, each.

    Several where every run fits on one of several cards, or on a share of many cores, and host memory holds that many;
    each with its own card and as many cores. On a Ray cluster a run takes all of it.
    """
    machine = plans[0].machine
    cards = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(machine.gpus)))).split(",")
    count = min(_most(machine, configs, len(cards)), len(plans))
    if machine.host_memory:
        count = min(count, int(machine.host_memory // max(plan.needed("host") for plan in plans)))
    if count < 2:
        return [Lane(machine.cores, command=command)]
    share = len(machine.cores) // count
    return [
        Lane(machine.cores[i * share : (i + 1) * share], cards[i] if machine.gpus else None, command)
        for i in range(count)
    ]


def _most(machine: Machine, configs: Sequence[Config], cards: int) -> int:
    if os.environ.get("RAY_ADDRESS") or any((config.learner.ranks or 1) > 1 for config in configs):
        return 1
    if machine.gpus == 0:
        return len(machine.cores) // CORES
    one = replace(machine, gpus=1)
    alone = cards == machine.gpus <= len(machine.cores) and all(make_plan(config, one).fits for config in configs)
    return machine.gpus if alone else 1


def held(folder: Path) -> bool:
    """Whether a process is at work on the run in a folder."""
    if not folder.exists():
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

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

from actors.runtime.cause_of_death import describe_status
from conf.schema import Config
from launch.plan.machine import Machine, with_cards
from launch.plan.plan import make_plan
from launch.session.failure import read

RUN = (sys.executable, str(Path(__file__).parents[1] / "run.py"))

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


def lanes(configs: Sequence[Config], machines: Sequence[Machine], command: Sequence[str] = RUN) -> list[Lane]:
    """As many lanes as there is room for, of which n each takes every n-th run. configs, machines: of each run.

    Several where every run fits on the part of the machine that its lane has. On a Ray cluster a run takes all of it.
    """

    def fit(count: int) -> bool:
        parts = [part(machine, number % count, count) for number, machine in enumerate(machines)]
        return all(make_plan(config, own).fits for config, own in zip(configs, parts, strict=True))

    most = min(_most(configs, machines), len(configs))
    count = next((count for count in range(most, 1, -1) if fit(count)), 1)
    if count == 1:
        return [Lane(machines[0].cores, command=command)]
    parts = [part(machines[0], number, count) for number in range(count)]
    return [Lane(own.cores, own.cards[0].index if own.cards else None, command) for own in parts]


def part(machine: Machine, number: int, count: int) -> Machine:
    """What a lane, one of so many, has of a machine: a card of its own if there are cards, an equal share of the rest.

    A single lane has all of it.
    """
    if count == 1:
        return machine
    each = len(machine.cores) // count
    cores = machine.cores[number * each : (number + 1) * each]
    own = with_cards(machine.cards[number : number + 1], cores) if machine.cards else replace(machine, cores=cores)
    return replace(own, host_memory=machine.host_memory and machine.host_memory // count)


def _most(configs: Sequence[Config], machines: Sequence[Machine]) -> int:
    machine = machines[0]
    if os.environ.get("RAY_ADDRESS") or any(other != machine for other in machines):
        return 1
    if any((config.learner.ranks or 1) > 1 or (config.rollout.actors or 1) > 1 for config in configs):
        return 1
    return min(len(machine.cards), len(machine.cores)) if machine.gpus else len(machine.cores) // CORES


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

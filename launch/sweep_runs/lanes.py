"""Cells side by side: a part of the machine each, and one process of `launch/run.py` at a time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actors.runtime.cause_of_death import describe_exit
from actors.runtime.process import end_with
from conf.settings import changed
from launch.hardware.machine import Machine, with_cards
from launch.plan.calibration import plan_measured
from launch.plan.plan import Plan
from launch.session.resume import resolve_dtype
from launch.sweep_runs.grid import Cell, Grid
from rewards.functions import check_functions

RUN = (sys.executable, str(Path(__file__).parents[1] / "run.py"))

STATUS = {130: "interrupted", 143: "interrupted", 3: "halted"}
"""How a run stands after an exit code; failed after any other but 0."""


class Lane:
    """A part of the machine on which cells run one after another."""

    def __init__(self, cells: Sequence[Cell], machine: Machine, card: str | None, command: Sequence[str]) -> None:
        """card: for CUDA_VISIBLE_DEVICES, None for all there are. command: what carries out a cell."""
        self.cells = cells
        self.waiting = list(cells)
        self.running: Cell | None = None
        self._cores = machine.cores
        self._card = card
        self._command = command
        self._process: subprocess.Popen[bytes]
        self._log: Path

    def start(self, cell: Cell, arguments: Sequence[str], log: Path) -> None:
        """Start the run of a cell; what it says is appended to the log.

        It has a session of its own, so that Ctrl-C reaches it through `signal` alone, and is told to end, as by
        SIGTERM, if this process dies.
        """
        environment = os.environ if self._card is None else {**os.environ, "CUDA_VISIBLE_DEVICES": self._card}
        parent = os.getpid()

        def prepare() -> None:
            os.sched_setaffinity(0, self._cores)
            end_with(parent)

        self.running, self._log = cell, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=prepare,  # safe, since this process has one thread
            )

    def signal(self, number: int) -> None:
        """Pass a signal on to the run, if there is one."""
        if self.running:
            self._process.send_signal(number)

    def ended(self) -> tuple[Cell, str, str | None] | None:
        """Return the cell whose run is over since the last call, if there is one, with its status and the reason."""
        if not self.running or (code := self._process.poll()) is None:
            return None
        cell, self.running = self.running, None
        summary = cell.record.summary()
        if summary and (code == 0 or STATUS.get(code, "failed") == summary.status):
            return cell, summary.status, summary.reason
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        words = said[-1].removeprefix("run.py: ") if said and code > 0 else describe_exit(code)
        return cell, STATUS.get(code, "failed"), words


def plan_lanes(grid: Grid, machines: Sequence[Machine], command: Sequence[str]) -> tuple[list[Lane], dict[str, Plan]]:
    """Return as many lanes as every cell fits on, of which n each has every n-th cell, and the plan of every cell.

    machines: of each cell. On a Ray cluster a run takes all of it.
    """
    for count in range(min(_most(grid, machines), len(grid.cells)), 0, -1):
        plans = _plans(grid, machines, count)
        if all(plan.fits for plan in plans.values()):
            break
    lanes = []
    for number in range(count):
        own = part(machines[number], number, count)
        lanes.append(Lane(grid.cells[number::count], own, own.cards[0].index if count > 1 else None, command))
    return lanes, plans


def _most(grid: Grid, machines: Sequence[Machine]) -> int:
    machine = machines[0]
    if os.environ.get("RAY_ADDRESS") or any(other != machine for other in machines):
        return 1
    if any((c.config.learner.ranks or 1) > 1 or (c.config.rollout.actors or 1) > 1 for c in grid.cells):
        return 1
    return max(min(len(machine.cards), len(machine.cores)), 1)


def _plans(grid: Grid, machines: Sequence[Machine], count: int) -> dict[str, Plan]:
    """Plan every cell on its lane's part of its machine, of so many, with its part of the sweep's budget."""
    plans, total = {}, grid.settings.seconds
    for number, (cell, machine) in enumerate(zip(grid.cells, machines, strict=True)):
        own = part(machine, number % count, count)
        config = resolve_dtype(cell.config, machine)
        if total is not None:
            config = changed(config, {"budget.minutes": equal_part(total, len(grid.cells[::count])) / 60})
        check_functions(config.reward)
        plans[cell.name] = plan_measured(config, own, grid.folder.parent)
    return plans


def equal_part(left_s: float, cells: int) -> float:
    """Return the seconds that the next of so many cells, which run one after another, may take of those left."""
    return max(left_s, 0.0) / max(cells, 1)


def part(machine: Machine, number: int, count: int) -> Machine:
    """Return what a lane, one of so many, has of a machine: a card of its own and an equal share of the rest."""
    if count == 1:
        return machine
    each = len(machine.cores) // count
    own = with_cards(machine.cards[number : number + 1], machine.cores[number * each : (number + 1) * each])
    return replace(own, host_memory=machine.host_memory and machine.host_memory // count)

"""`python -m tests.faults.table`: kill -9 of every process of a real tiny run, first while it trains, then while it
writes a checkpoint.

A line for each fault as it is over: updates lost, groups asked for again, and seconds until the run was further than
before the fault. The run itself starts actors and coordinator anew; where the driver dies, the same command is given
again at once. In the end, what the whole history has to be is checked.
"""

import re
import signal
import sys
import time
from collections.abc import Callable

from actors.coordinator.coordinator import TICK_S
from tests.e2e.conftest import read_rows
from tests.faults.alone import runs
from tests.faults.conftest import COORDINATOR, ENGINE, LEARNER, REWARD, ROLLOUT, WORKER, Run, latest, learned_from

DRIVER = "launch/run.py"
FAULTS = (ENGINE, ROLLOUT, WORKER, REWARD, LEARNER, COORDINATOR, DRIVER)
NAMES = {
    ENGINE: "rollout-0 restarted",
    ROLLOUT: "rollout-0 restarted",
    REWARD: "reward-0 restarted",
    LEARNER: "learner died",
    COORDINATOR: "coordinator died",
}
"""Events that tell of an actor's death."""

SETTINGS = ("budget.minutes=120", "eval.problems=0", "checkpoint.every=3", "learner.learning_rate=1e-6")
"""A policy that has learned all there is would end the run."""
PER_UPDATE = 4
"""Groups, as the tests' runs have it."""

KINDS = ("updates", "groups")
ASKED_AGAIN = re.compile(r"(\d+) requests asked again")

QUIET_UPDATES = 4
"""Between two faults: an actor that dies again before it has answered ends the run, as it should."""


class Trial:
    """A run that is killed piece by piece."""

    def __init__(self, begin: Callable[..., Run]) -> None:
        self._begin = begin
        self._run = begin("table", *SETTINGS)
        self._former: list[Run] = []

    def suffer(self, victim: str, writing: bool) -> tuple[int, int, float]:
        """Updates lost, groups asked for again, and seconds until there was an update more."""
        run, told = self._run, len(self._run.events(NAMES.get(victim, "")))
        run.wait_for_update(run.updates + QUIET_UPDATES)
        target, coordinator = run.process if victim == DRIVER else run.find(victim), run.find(COORDINATOR)
        if writing:
            folder = run.folder / "checkpoints"
            run.wait_until(lambda: any(folder.glob(".update-*.tmp")), "checkpoint under way", pause=0.001)
        before, reached, saved = run.counts, run.updates, latest(run.folder)
        began = time.monotonic()
        target.kill()
        if victim == DRIVER:
            run.process.wait()
            self._former.append(run)
            self._run = self._begin("table", *SETTINGS)
            coordinator.wait()  # it outlives its driver until it is found by the next, and goes on until then
            row = read_rows(run.folder)[-1]
            at = run.updates
            lost = at - latest(run.folder)
            again = lost * PER_UPDATE + int(row["groups/running"] + row["groups/waiting"])
            self._run.wait_until(lambda: self._run.updates > at, "progress")
            return lost, again, time.monotonic() - began
        if victim in NAMES:
            run.wait_until(lambda: len(run.events(NAMES[victim])) > told, f"word of {victim}")
        at = run.updates
        run.wait_until(lambda: run.updates > at, "progress")
        seconds = time.monotonic() - began
        time.sleep(2 * TICK_S)  # until the ledger is written
        if victim == COORDINATOR:
            return reached - saved, (reached - saved) * PER_UPDATE, seconds
        lost, again = (run.counts.get(f"{kind}/abandoned", 0) - before.get(f"{kind}/abandoned", 0) for kind in KINDS)
        if victim in (ENGINE, ROLLOUT, REWARD):
            again += sum(int(ASKED_AGAIN.findall(text)[0]) for text in run.events(NAMES[victim])[told:])
        return lost, again, seconds

    def end(self) -> str:
        """What the history is, once the run was told to stop."""
        self._run.process.send_signal(signal.SIGTERM)
        ended = self._run.end()
        for run in self._former:
            run.check_nothing_left()
        assert ended.code == 143, ended.output
        assert [row["update"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))
        return f"{len(ended.rows)} updates, {len(learned_from(ended))} groups, none twice; no process or memory left"


def main() -> int:
    print(f"{'kill -9 of':<24} {'while':<22} {'updates lost':>12} {'groups again':>13} {'seconds':>8}")
    with runs() as begin:
        trial = Trial(begin)
        for moment in ("training", "writing a checkpoint"):
            for victim in FAULTS:
                lost, again, seconds = trial.suffer(victim, writing=moment != "training")
                print(f"{victim:<24} {moment:<22} {lost:>12} {again:>13} {seconds:>8.1f}", flush=True)
        print(trial.end())
    return 0


if __name__ == "__main__":
    sys.exit(main())

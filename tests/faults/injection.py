"""Injects fault after fault into a real tiny run, while it trains and while it saves a checkpoint.

Prints a line per fault: how the run went on or ended, lost updates, seconds until it was further than before, and its
messages. A run that ends is given the same command once the harm is made good. In the end the whole history is checked.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.conftest import Run, latest, learned_from
from tests.faults.moments import FAULTS, KILLS, Fault, small_world

Begin = Callable[..., Run]
Runs = Callable[[Path | None], AbstractContextManager[Begin]]

SETTINGS = ("budget.minutes=120", "eval.problems=0", "checkpoint.every=3", "learner.learning_rate=1e-6")
"""Settings of the run. Its learning rate is small, since a policy that has learned everything would end it."""

MOMENTS = ("training", "saving")

OWN_NAMESPACE = "FAULTS_NAMESPACE"

HANG_S = 420.0
"""Seconds after the harm was made good, in which a run that does not hang goes on or ends."""

QUIET_UPDATES = 4
"""Updates between two faults: an actor that crashes again before it has answered rightly ends the run."""

PAUSE_S = 0.2

RESTART = re.compile(r"restarting from update (\d+)")
ENDING = re.compile(r"^\w+ after \d+ updates in .*?: (.*)$", re.MULTILINE)


class Trial:
    """A run with one fault after the other."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._run = begin("trial", *SETTINGS)
        self._former: list[Run] = []

    def suffer(self, fault: Fault, saving: bool) -> str:
        """Return how the run went on or ended, lost updates, seconds, and its messages."""
        run = self._run
        run.wait_for_update(run.updates + QUIET_UPDATES)
        run.look()
        harm = fault.harm(run)
        if saving:
            folder = run.folder / "checkpoints"
            run.wait_until(lambda: any(folder.glob(".update-*.tmp")), "checkpoint under way", pause=0.001)
        at, told, began = run.updates, len(run.events("")), time.monotonic()
        with harm as over:
            wait(run, over, fault.seconds)
            ended_s = time.monotonic() - began
        reached = max(at, run.updates)
        if wait(run, lambda: run.updates > reached, HANG_S):
            said = "; ".join(run.events("")[told:])
            lost = at - min(map(int, RESTART.findall(said)), default=at)
            return f"{'went on':<22} {max(lost, 0):>4} {time.monotonic() - began:>7.1f}  {said}"
        if run.process.poll() is None:
            raise SystemExit(f"{fault.name}: the run hangs")
        code, said = run.process.wait(), ""
        if code >= 0:  # what is left of a killed driver still holds its output
            output = run.output()
            said = "; ".join(ENDING.findall(output)) or output[-2000:]
        self._former.append(run)
        again = self._run = self._begin("trial", *SETTINGS)
        again.said("Run folder")  # what was left of the former process has ended by then
        reached = max(reached, again.updates)  # rows up to there may be old ones
        lost = reached - latest(again.folder)
        again.wait_until(lambda: again.updates > reached, "progress after the same command")
        how = f"exit {code} after {ended_s:.0f} s"
        return f"{how:<22} {lost:>4} {time.monotonic() - began:>7.1f}  {said}"

    def end(self) -> str:
        """Stop the run and return a sentence on its history."""
        self._run.process.send_signal(signal.SIGTERM)
        ended = self._run.end()
        for run in self._former:
            run.check_nothing_left()
        assert ended.code == 143, (ended.code, ended.output[-3000:])
        assert [row["update"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))
        return f"{len(ended.rows)} updates, {len(learned_from(ended))} groups, none twice; no process or memory left"


def wait(run: Run, happened: Callable[[], bool], seconds: float) -> bool:
    """Whether something has happened before the run ended or the time passed."""
    end = time.monotonic() + seconds
    while run.process.poll() is None and time.monotonic() < end:
        if happened():
            return True
        time.sleep(PAUSE_S)
    return False


def kill(runs: Runs, _: Sequence[str]) -> int:
    """Kill every process of a run."""
    return harm_all(runs, None, KILLS, list(KILLS))


def inject(runs: Runs, arguments: Sequence[str]) -> int:
    """Inject these faults, by default all, in a mount namespace of its own, which root may make."""
    if OWN_NAMESPACE not in os.environ:
        os.environ[OWN_NAMESPACE] = "made"
        os.execvp("unshare", ["unshare", "-m", sys.executable, "-m", "tests.faults", "inject", *arguments])
    with small_world() as disk:
        return harm_all(runs, disk, FAULTS, arguments or list(FAULTS))


def harm_all(runs: Runs, disk: Path | None, faults: Mapping[str, Fault], names: Sequence[str]) -> int:
    chosen = [name.partition(":")[::2] for name in names]
    with runs(disk) as begin:
        print(f"{'':<32} {'while':<10} {'':<22} {'lost':>4} {'seconds':>7}  told", flush=True)
        trial = Trial(begin)
        for name, only in chosen:
            for moment in [only] if only else MOMENTS:
                row = trial.suffer(faults[name], saving=moment == "saving")
                print(f"{faults[name].name:<32} {moment:<10} {row}", flush=True)
        print(trial.end())
    return 0

"""`python -m tests.faults.ordeal [NAME[:MOMENT] …]`: what befalls a real tiny run besides kill -9, while it trains and
a checkpoint is saved; without a name, all there is (see `moments.FAULTS`).

A line for each as it is over: how it ended, updates lost, seconds until the run was further than before or had ended,
and what a person was told. A run that ends is given the same command once the harm is made good. In the end, what the
whole history has to be is checked. As root, and in a mount namespace of its own, which it makes.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable

from actors.coordinator.coordinator import TICK_S
from tests.faults.alone import runs
from tests.faults.conftest import Run, latest, learned_from
from tests.faults.moments import FAULTS, Fault, small_world
from tests.faults.table import SETTINGS

OWN_NAMESPACE = "FAULTS_NAMESPACE"

HANG_S = 420.0
"""A run that has neither gone on nor ended so long after the harm was made good hangs."""

MOMENTS = ("training", "saving")

RECOVERED_UPDATES = 2
PAUSE_S = 0.2

ENDING = re.compile(r"^\w+ after \d+ updates in .*?: (.*)$", re.MULTILINE)


class Ordeal:
    """A run that suffers one fault after the other."""

    def __init__(self, begin: Callable[..., Run]) -> None:
        self._begin = begin
        self._run = begin("ordeal", *SETTINGS)

    def suffer(self, fault: Fault, writing: bool) -> str:
        """How the run ended or went on, updates lost, seconds, and what was said."""
        run = self._run
        run.wait_for_update(run.updates + RECOVERED_UPDATES)
        run.look()
        if writing:
            folder = run.folder / "checkpoints"
            run.wait_until(lambda: any(folder.glob(".update-*.tmp")), "checkpoint under way", pause=0.001)
        at, told, abandoned = run.updates, len(run.events("")), run.counts.get("updates/abandoned", 0)
        began = time.monotonic()
        with fault.harm(run) as over:
            wait(run, over, fault.seconds)
            ended_s = time.monotonic() - began
        if wait(run, lambda: run.updates >= at + RECOVERED_UPDATES, HANG_S):
            seconds, said = time.monotonic() - began, "; ".join(run.events("")[told:])
            time.sleep(2 * TICK_S)  # until the ledger is written
            lost = run.counts.get("updates/abandoned", 0) - abandoned
            return f"went on     {lost:>4} {seconds:>7.1f}  {said}"
        if run.process.poll() is None:
            raise SystemExit(f"{fault.name}: the run hangs")
        output = run.output()
        said = "; ".join(ENDING.findall(output)) or output[-2000:]
        at, saved = max(at, run.updates), latest(run.folder)
        self._run = again = self._begin("ordeal", *SETTINGS)
        again.wait_until(lambda: again.updates > at, "progress after the same command")  # rows to `at` may be old ones
        return f"exit code {run.process.returncode} {at - saved:>4} {ended_s:>7.1f}  {said}"

    def end(self) -> str:
        """What the history is, once the run was told to stop."""
        self._run.process.send_signal(signal.SIGTERM)
        ended = self._run.end()
        assert ended.code == 143, (ended.code, ended.output[-3000:])
        assert [row["update"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))
        return f"{len(ended.rows)} updates, {len(learned_from(ended))} groups, none twice; no process or memory left"


def wait(run: Run, happened: Callable[[], bool], seconds: float) -> bool:
    """Whether something has happened; not if the run ended, or the time passed, before."""
    end = time.monotonic() + seconds
    while run.process.poll() is None and time.monotonic() < end:
        if happened():
            return True
        time.sleep(PAUSE_S)
    return False


def main(arguments: list[str]) -> int:
    if OWN_NAMESPACE not in os.environ:
        os.environ[OWN_NAMESPACE] = "made"
        os.execvp("unshare", ["unshare", "-m", sys.executable, "-m", "tests.faults.ordeal", *arguments])
    chosen = [name.partition(":")[::2] for name in arguments or FAULTS]
    with small_world({name for name, _ in chosen}) as disk, runs(disk) as begin:
        print(f"{'':<32} {'while':<10} {'ended':<11} {'lost':>4} {'seconds':>7}  told", flush=True)
        ordeal = Ordeal(begin)
        for name, only in chosen:
            for moment in [only] if only else MOMENTS:
                row = ordeal.suffer(FAULTS[name], writing=moment == "saving")
                print(f"{FAULTS[name].name:<32} {moment:<10} {row}", flush=True)
        print(ordeal.end())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

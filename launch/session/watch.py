"""The driver's side of a run: its coordinator, the signals it gets, what a person sees."""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from actors.runtime.cause_of_death import Witness, log_of, post_mortem
from actors.runtime.remote_actor import BAD_INPUT
from conf.errors import BadInput
from launch.console import RunView
from launch.plan.fitting import ENOUGH, learn_from
from launch.plan.machine import detect
from launch.session.coordinator_actor import CoordinatorActor, RunRequest, last_line
from launch.session.failure import events, write_ending, write_spent

POLL_S = 0.5
CLOSE_S = 10.0

HURRY_S = 5.0
"""Seconds that a second signal leaves for summary.json."""

SILENCE_S = 120.0
"""A coordinator that does not answer for so long hangs. It may be busy for long with writing a checkpoint to disk."""


class Watch:
    """One coordinator, from its start to its end. Make it after ray.init, whose SIGTERM handler it replaces.

    The first signal ends the run gracefully, the second at once, a third leaves without a summary.
    """

    def __init__(self, request: RunRequest, console: Console, logs: Path) -> None:
        self._received: list[int] = []
        self._request = request
        self._folder = Path(request.folder)
        self._console = console
        self._logs = logs
        self._seen = len(events(self._folder))
        self._machine = detect(request.config.device)
        self._measured = False
        self._pid: int | None = None
        self._witness: Witness | None = None
        remote: Any = ray.remote(CoordinatorActor)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._coordinator = remote.options(name="coordinator", num_cpus=0, scheduling_strategy=here).remote(request)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def follow(self) -> dict[str, Any]:
        """Show the run until it ends; its summary, also if the coordinator died. Raises BadInput if that ended it."""
        try:
            with RunView(self._console) as view:
                self._pid = self._wait_for_coordinator()
                self._witness = Witness(self._pid)
                ending: ray.ObjectRef[dict[str, Any]] = self._coordinator.run.remote()
                while not ray.wait([ending], timeout=POLL_S)[0]:
                    progress = ray.get(self._coordinator.progress.remote(), timeout=SILENCE_S)
                    view.show(progress)
                    self._show_events()
                    if not self._measured and progress.updates >= ENOUGH:
                        self._measured = True
                        self._console.print(self._measure(), soft_wrap=True, highlight=False)
            return ray.get(ending)
        except RayTaskError as error:
            if isinstance(error.cause, BadInput):
                raise error.cause from error
            summary = self._failure(f"the coordinator failed: {last_line(error)}")
            (self._folder / "failure.log").write_text(str(error))
            return summary
        except GetTimeoutError:
            return self._failure(f"the coordinator gave no sign of life for {SILENCE_S:.0f} s")
        except (RayActorError, OutOfMemoryError) as error:
            if bad := BAD_INPUT.search(str(error)):
                raise BadInput(bad[1]) from error
            log = log_of(self._logs, self._pid, str(error))
            return self._failure(f"the coordinator died: {post_mortem(str(error), self._witness, log)}")

    def close(self) -> None:
        """Once the run has ended: learn from it, and free what its actors hold."""
        self._measure()
        ray.wait([self._coordinator.close.remote()], timeout=CLOSE_S)  # who hangs is killed by the shutdown

    def _wait_for_coordinator(self) -> int:
        """Keep the time until the coordinator does; its process. Raises GetTimeoutError if it hangs."""
        there: ray.ObjectRef[int] = self._coordinator.__ray_call__.remote(_process_id)
        began = time.monotonic()
        while not ray.wait([there], timeout=POLL_S)[0] and time.monotonic() - began < SILENCE_S:
            write_spent(self._folder, self._request.spent)
        return ray.get(there, timeout=POLL_S)

    def _measure(self) -> str:
        """Keep what the run tells about the machine; what that is. No run ends because it could not be measured."""
        try:
            return learn_from(self._folder, self._machine)
        except Exception as error:
            return f"The run could not be measured for the next plan: {error!r}"

    def _failure(self, reason: str) -> dict[str, Any]:
        return write_ending(self._request, "failed", reason)

    def _show_events(self) -> None:
        """Print what befell the run since the last look."""
        known = events(self._folder)
        for event in known[self._seen :]:
            self._console.print(f"{event['event']}: {event['detail']}", soft_wrap=True, highlight=False, markup=False)
        self._seen = len(known)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)
        if len(self._received) > 2:
            os._exit(128 + self._received[0])
        if len(self._received) == 2:
            hurry = threading.Timer(HURRY_S, os._exit, [128 + self._received[0]])
            hurry.daemon = True
            hurry.start()
        self._coordinator.stop.remote(signal.Signals(number).name)


def _process_id(_: Any) -> int:
    return os.getpid()

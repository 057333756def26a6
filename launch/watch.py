"""The driver's side of a run: its coordinator, the signals it gets, what a person sees."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from actors.coordinator_actor import CoordinatorActor, RunRequest
from actors.post_mortem import Witness, log_of, post_mortem
from actors.remote import BAD_INPUT
from conf.errors import BadInput
from launch.console import RunView
from launch.failure import events, write_failure
from launch.fitting import ENOUGH, learn_from
from launch.machine import detect

POLL_S = 0.5
CLOSE_S = 10.0

HURRY_S = 5.0
"""Seconds that a second signal leaves for summary.json."""

SILENCE_S = 120.0
"""A coordinator that does not answer for so long hangs. It may be busy for long with writing a checkpoint to disk."""


class Watch:
    """One coordinator, from its start to its end. Make it after ray.init, whose SIGTERM handler it replaces.

    received: signals so far. The first ends the run gracefully, the second at once, a third leaves without a summary.
    """

    def __init__(self, request: RunRequest, console: Console, logs: Path) -> None:
        self.received: list[int] = []
        self._folder = Path(request.folder)
        self._budget_s = request.config.budget.seconds
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
        ending: ray.ObjectRef[dict[str, Any]] = self._coordinator.run.remote()
        try:
            with RunView(self._console) as view:
                self._pid = ray.get(self._coordinator.__ray_call__.remote(_process_id), timeout=SILENCE_S)
                self._witness = Witness(self._pid)
                while not ray.wait([ending], timeout=POLL_S)[0]:
                    progress = ray.get(self._coordinator.progress.remote(), timeout=SILENCE_S)
                    view.show(progress)
                    self._show_events()
                    if not self._measured and progress.updates >= ENOUGH:
                        self._measured = True
                        self._console.print(self._measure(), soft_wrap=True, highlight=False)
            summary: dict[str, Any] = ray.get(ending)
            self._measure()
            ray.wait([self._coordinator.close.remote()], timeout=CLOSE_S)  # who hangs is killed by the shutdown
        except RayTaskError as error:
            raise error.cause from error
        except GetTimeoutError:
            return self._failure(f"the coordinator gave no sign of life for {SILENCE_S:.0f} s")
        except (RayActorError, OutOfMemoryError) as error:
            if bad := BAD_INPUT.search(str(error)):
                raise BadInput(bad[1]) from error
            log = log_of(self._logs, self._pid, str(error))
            return self._failure(f"the coordinator died: {post_mortem(str(error), self._witness, log)}")
        return summary

    def _measure(self) -> str:
        """Keep what the run tells about the machine; what that is. No run ends because it could not be measured."""
        try:
            return learn_from(self._folder, self._machine)
        except Exception as error:
            return f"The run could not be measured for the next plan: {error!r}"

    def _failure(self, reason: str) -> dict[str, Any]:
        return write_failure(self._folder, self._budget_s, reason)

    def _show_events(self) -> None:
        """Print what befell the run since the last look."""
        known = events(self._folder)
        for event in known[self._seen :]:
            self._console.print(f"{event['event']}: {event['detail']}", soft_wrap=True, highlight=False, markup=False)
        self._seen = len(known)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if len(self.received) > 2:
            os._exit(128 + self.received[0])
        if len(self.received) == 2:
            hurry = threading.Timer(HURRY_S, os._exit, [128 + self.received[0]])
            hurry.daemon = True
            hurry.start()
        self._coordinator.stop.remote(signal.Signals(number).name)


def _process_id(_: Any) -> int:
    return os.getpid()

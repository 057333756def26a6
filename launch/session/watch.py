"""The driver's side of a run: its coordinator, signals, and display."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from microbudget_rl.actors.coordinator.actor import CoordinatorActor, last_line
from microbudget_rl.actors.coordinator.context import RunRequest
from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import Progress
from microbudget_rl.actors.runtime.cause_of_death import ExitWatcher, cause_of_death
from microbudget_rl.actors.runtime.process import after
from microbudget_rl.actors.runtime.ray_session import end_actors
from microbudget_rl.actors.runtime.remote_actor import raise_bad_input
from microbudget_rl.actors.runtime.supervision import RestartLimit
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.actors.storage.documents import EventKind, RunSummary
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.signals import handle_signals, leave
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.plan.measurements import ENOUGH, learn_from
from microbudget_rl.launch.session.actors import free_learners, start_actors
from microbudget_rl.launch.session.console import RunView
from microbudget_rl.launch.session.ending import write_ending
from microbudget_rl.learner.training_state import misfit

POLL_S = 0.5

LOGGERS_S, CLOSE_S = 30.0, 10.0
"""Seconds after the end of a run that loggers get to send their remaining calls, and the coordinator to close."""

HURRY_S = 5.0
"""Seconds after a second signal until this process leaves without a summary."""

SILENCE_S = 300.0
"""Seconds without an answer after which a coordinator counts as hanging. Writing a checkpoint may take long, and a
pause of machine or disk for two minutes must not end a run."""

T = TypeVar("T")


class Watch:
    """Follows a run across crashes of its coordinator. The first signal ends it gracefully, the second at once."""

    def __init__(self, request: RunRequest, console: Console, logs: Path) -> None:
        self._signals: list[int] = []
        self._request = request
        self._folder = RunFolder(request.folder)
        self._console = console
        self._logs = logs
        self._events_shown = len(self._folder.events())
        self._machine = detect(request.config.device)
        self._measured = False
        self._limit = RestartLimit("the coordinator")
        self._starts = 0
        self._start(request)
        handle_signals(self._on_signal)

    def follow(self, answered: Callable[[], None] = lambda: None) -> RunSummary:
        """Show the run until it ends. Raises BadInput if that ended it. answered: called once a coordinator answers."""
        try:
            with RunView(self._console) as view:
                while True:
                    try:
                        return self._follow(view, answered)
                    except (RayActorError, OutOfMemoryError, GetTimeoutError) as error:
                        if (summary := self._start_again(error)) is not None:
                            return summary
        except RayTaskError as error:
            if isinstance(error.cause, BadInput):
                raise error.cause from error
            reason, whole = f"the coordinator failed: {last_line(error)}", str(error)
        except ActorDied as end:
            reason, whole = str(end), ""
        except OSError as error:  # from the run folder before there is a coordinator
            reason, whole = f"the driver failed: {error}", ""
        return write_ending(self._request, "failed", reason, whole)

    def _start(self, request: RunRequest) -> None:
        """Start a coordinator, which continues from the run's last checkpoint."""
        self._starts += 1
        self._began_at = self._folder.checkpoints.latest
        self._watcher: ExitWatcher | None = None
        remote: Any = ray.remote(CoordinatorActor)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        name = "coordinator" if self._starts == 1 else f"coordinator-life-{self._starts}"
        actor = remote.options(name=name, num_cpus=0, scheduling_strategy=here)
        self._coordinator = actor.remote(request, start_actors, misfit)

    def _follow(self, view: RunView, answered: Callable[[], None]) -> RunSummary:
        """Show the run of one coordinator and return its summary. Raises Ray's error if it crashes or hangs."""
        pid: ray.ObjectRef[int] = self._coordinator.__ray_call__.remote(lambda _: os.getpid())
        self._watcher = ExitWatcher(self._answer(pid, lambda: self._folder.write_spent(self._request.spent)))
        answered()
        ending: ray.ObjectRef[RunSummary] = self._coordinator.run.remote()
        while not ray.wait([ending], timeout=POLL_S)[0]:
            progress: Progress = self._answer(self._coordinator.progress.remote())
            view.show(progress)
            self._show_events()
            if not self._measured and progress.latest.get("update", 0) >= ENOUGH:  # its row is written
                self._measured = True
                self._console.print(self._measure())
        self._show_events()
        return ray.get(ending)

    def _start_again(self, error: Exception) -> RunSummary | None:
        """Start another coordinator after a crash, or return the ended run's summary. Raises BadInput or ActorDied."""
        raise_bad_input(error)
        if isinstance(error, GetTimeoutError):
            ray.kill(self._coordinator)
            cause = f"it did not answer for {SILENCE_S:.0f} s and was killed"
        else:
            cause = cause_of_death(str(error), self._watcher, self._logs)
        free_learners()
        end_actors()
        latest = self._folder.checkpoints.latest
        if latest != self._began_at:
            self._limit.answered()
        if not self._over():
            pause = self._limit.pause(time.monotonic(), ActorDied(cause))
            version = version_of(latest) if latest else 0
            then = f"restarting from update {version}, {self._limit.attempt}"
            self._folder.append_event(version, EventKind.DIED, f"{cause}; {then}", "coordinator")
            self._show_events()
            time.sleep(pause)
        if (summary := self._over()) is None:
            self._start(replace(self._request, restarted=True))
        return summary

    def _over(self) -> RunSummary | None:
        """Return the summary of a run that has ended, or was told to stop; None for any other."""
        if self._signals:
            return write_ending(self._request, "interrupted", signal.Signals(self._signals[0]).name)
        return self._folder.summary()

    def close(self, summary: RunSummary) -> None:
        """Store measurements of the finished run, have loggers send its end, and free everything its actors hold."""
        self._measure()
        ray.wait([self._coordinator.show_ending.remote(summary, LOGGERS_S)], timeout=LOGGERS_S + POLL_S)
        ray.wait([self._coordinator.close.remote()], timeout=CLOSE_S)  # Ray's shutdown kills hanging actors

    def _answer(self, asked: "ray.ObjectRef[T]", meanwhile: Callable[[], None] = lambda: None) -> T:
        """Return an answer. Raises GetTimeoutError after SILENCE_S in which this process was not stopped."""
        for _ in range(round(SILENCE_S / POLL_S)):
            if ray.wait([asked], timeout=POLL_S)[0]:
                break
            meanwhile()
        return ray.get(asked, timeout=POLL_S)

    def _measure(self) -> str:
        """Store the run's measurements for later plans, and return a sentence on them. No error fails the run."""
        try:
            return learn_from(self._folder.path, self._machine)
        except Exception as error:
            return f"The run could not be measured for the next plan: {error!r}"

    def _show_events(self) -> None:
        events = self._folder.events()
        for event in events[self._events_shown :]:
            self._console.print(f"{event.event}: {event.detail}")
        self._events_shown = len(events)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        if len(self._signals) == 2:
            print(f"{signal.Signals(number).name} again: the run ends at once, with its last checkpoint", flush=True)
            after(HURRY_S, lambda: leave(128 + self._signals[0], "ended without a summary"))
        self._coordinator.stop.remote(signal.Signals(number).name)

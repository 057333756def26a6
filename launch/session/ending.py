"""The end of a run: summary.json, the exit code, the command of `run.on_end`, and the next steps."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

from microbudget_rl.actors.coordinator.budget import FINISH_MARGIN_S
from microbudget_rl.actors.coordinator.context import Outcome, RunRequest, summarise
from microbudget_rl.actors.formats import counted, duration, money
from microbudget_rl.actors.models.prompts import reminder
from microbudget_rl.actors.runtime.process import after
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.actors.storage.documents import LedgerRecord, RunSummary
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import BEHIND, FINISHED, RunRecord
from microbudget_rl.conf import signals
from microbudget_rl.conf.command import as_typed, near
from microbudget_rl.conf.schema import Call, Config
from microbudget_rl.conf.settings import settings
from microbudget_rl.launch.session.admission import budget_shortage, ends_at_zero, enough_budget

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1, "halted": 3}

LATE_S, PATIENCE_S = 10.0, 300.0
"""Seconds after the end of the budget at which a run that has not ended counts as hanging, and that the `run.on_end`
command gets: the machine may cost by the minute."""


def write_ending(request: RunRequest, status: str, reason: str, failure: str = "") -> RunSummary:
    """Return the coordinator's summary, or write one, even if the disk is full. failure: the error's whole text."""
    folder = RunFolder(request.folder)
    if (written := folder.summary()) is not None:
        return written
    latest, ledger = folder.checkpoints.latest, folder.ledger() or LedgerRecord()
    summary = summarise(request, Outcome(status, reason), version_of(latest) if latest else 0, ledger)
    return folder.write_ending(summary, failure)


class OnEnd:
    """Runs the `run.on_end` command once, however often it is called. Its failure does not change the run's result."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder, self._done = config, folder, not config.run.on_end
        self._lock = threading.RLock()  # a signal may interrupt the call that holds it

    def __call__(self, summary: RunSummary, exit_code: int) -> None:
        """Run the command, or wait until another thread has run it."""
        with self._lock:
            if self._done:
                return
            self._done = True
            signals.handle_signals(lambda *_: None)  # an impatient one would end the command too
            run, ended = self._config.run, {"STATUS": summary.status, "REASON": summary.reason}
            facts = {**ended, "EXIT_CODE": str(exit_code), "NAME": run.name, "FOLDER": str(self._folder)}
            environment = os.environ | {f"MICROBUDGET_{name}": fact for name, fact in facts.items()}
            try:
                subprocess.run(run.on_end, shell=True, check=True, env=environment, timeout=PATIENCE_S)
            except (subprocess.SubprocessError, OSError, ValueError) as error:  # a reason with a zero byte
                print(f"run.on_end: {error}; the run's own result is above", file=sys.stderr)


def describe(summary: RunSummary) -> str:
    """Say how and when a run ended."""
    cost = "" if summary.cost is None else f", at a cost of {money(summary.cost)}"
    ended = {"budget_exhausted": "completed within its time budget", "halted": "stopped"}.get(summary.status)
    result = summary.result if summary.result and summary.result.update != summary.updates else None
    chosen = f"; the result is update {result.update}, {result.why}" if result else ""
    spent = f"{counted(summary.updates, 'update')} in {duration(summary.spent_s)}{cost}"
    return f"{ended or summary.status} after {spent}: {summary.reason}{chosen}"


def exit_code(summary: RunSummary) -> int:
    """Return the exit code of a run with this summary; an interrupted run's reason is the name of the signal."""
    if summary.status == "interrupted":
        return 128 + signal.Signals[summary.reason]
    return EXIT_CODES[summary.status]


def end_with_budget(request: RunRequest, on_end: OnEnd, answered: bool = False) -> threading.Timer:
    """Start a timer that ends this process, and all it started, with the budget. Once a coordinator has answered, it
    ends the run itself, and counts as hanging LATE_S seconds after the budget.
    """
    late_s, status, reason = -FINISH_MARGIN_S, "budget_exhausted", "the budget ended while the run was starting"
    if answered:
        late_s, status, reason = LATE_S, "failed", "the run has not ended with its budget: something hangs"

    def give_up() -> None:
        code = EXIT_CODES["failed"]
        try:
            summary = write_ending(request, status, reason)
            code = exit_code(summary)
            on_end(summary, code)
            print(describe(summary), *next_steps(summary, request.config, request.folder), sep="\n", flush=True)
        finally:
            signals.leave(code, keep=code == EXIT_CODES["failed"])

    return after(request.config.budget.seconds - request.spent + late_s, give_up)


def end_run(summary: RunSummary, on_end: OnEnd) -> None:
    """Run the command of `run.on_end`, then end this process at once."""
    try:
        on_end(summary, exit_code(summary))
    finally:
        signals.leave(exit_code(summary), describe(summary), keep=summary.status in ("failed", "halted"))


def next_steps(summary: RunSummary, config: Config, folder: Path) -> list[str]:
    """Return lines on the next steps: resume the run, use its model, or train on if it is far behind its plan."""
    record, run = RunRecord(folder), near(folder)
    if summary.status not in FINISHED:
        said, anew = budget_shortage(config, record), ", without run.overwrite=true," if config.run.overwrite else ""
        return [f"The same command{anew} resumes the run{f' if it gets more time: {said}' if said else ''}."]
    steps, planned = dict[str, str](), record.origin().planned
    if summary.updates or summary.result:
        steps = {
            "talk to it": f"python launch/chat.py {run}",
            "see responses": f"python launch/samples.py {run}",
            "measure more": f"python launch/evaluate.py adapter={run}",
            "take it away": f"python launch/export.py {run}",
        }
    few = not summary.updates or (planned and summary.updates < BEHIND * planned.updates)
    if few and summary.status == "budget_exhausted" and not (summary.updates and ends_at_zero(config)):
        once = ("budget.minutes", "budget.hours", "run.overwrite", *(item.path for item in settings(Call)))
        given = [each for each in sys.argv[1:] if "=" in each and each.partition("=")[0] not in once]
        more = enough_budget(config, record, twice=True)
        steps["train on"] = shlex.join(["python", "launch/run.py", *given, more])
    width = max(map(len, steps), default=0)
    lines = (f"  {what:<{width}}  {as_typed(command)}" for what, command in steps.items())
    return [*(["Next:"] if steps else []), *lines, *(reminder(config) if "talk to it" in steps else [])]

"""The input of a run, the objects its parts share, and its summary.json."""

import time
from dataclasses import dataclass
from pathlib import Path

from microbudget_rl.actors.attempt import Attempts
from microbudget_rl.actors.coordinator.budget import Budget, cost_of
from microbudget_rl.actors.coordinator.ledger import Ledger, MeteredSampler
from microbudget_rl.actors.coordinator.rules.selection import Selection, score_of
from microbudget_rl.actors.coordinator.stopping import StopController
from microbudget_rl.actors.messages import ProblemSet
from microbudget_rl.actors.protocols import Clock, Engine, Learner, Sampler, Verifier
from microbudget_rl.actors.runtime.host_resources import HostNeeds
from microbudget_rl.actors.runtime.placement import Placement
from microbudget_rl.actors.runtime.process import software_versions
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.actors.storage.documents import LedgerRecord, Plasticity, Result, RunSummary
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.schema import Config


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The input of a run.

    model_path: a local folder.
    hardware: the machine's description, for a person.
    started_at: start of run.py in seconds of the machine's monotonic clock, which no change of the date moves.
    spent_before: seconds that earlier processes of the run have used.
    restarted: whether a coordinator of this run.py has crashed before.
    """

    config: Config
    folder: Path
    model_path: str
    placement: Placement
    problems: ProblemSet
    host_needs: HostNeeds
    hardware: str
    started_at: float
    spent_before: float
    restarted: bool = False

    @property
    def spent(self) -> float:
        """Seconds of the budget used up to now."""
        return self.spent_before + time.monotonic() - self.started_at


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The objects that all parts of the coordinator share. max_running: most groups in the engines at once."""

    config: Config
    problems: ProblemSet
    engine: Engine
    learner: Learner
    verifier: Verifier
    folder: RunFolder
    budget: Budget
    ledger: Ledger
    clock: Clock
    stopping: StopController
    max_running: int

    def metered(self, kind: str, engine: Sampler | None = None) -> MeteredSampler:
        """Return the engines, or one of them, with their tokens counted as `tokens/<kind>`."""
        return MeteredSampler(engine or self.engine, kind, self.ledger)

    def attempts(self, kind: str) -> Attempts:
        """Return a maker of groups whose tokens are counted as `tokens/<kind>`."""
        return Attempts(self.config, self.metered(kind), self.verifier, self.clock)


@dataclass(frozen=True)
class Outcome:
    """The end of a run, with the values of summary.json."""

    status: str
    reason: str
    plasticity: Plasticity | None = None


def summarise(request: RunRequest, outcome: Outcome, updates: int, ledger: LedgerRecord) -> RunSummary:
    """Return the summary of a run that ends now. updates: the number that led to the last policy."""
    folder = RunFolder(request.folder)
    spent, price = request.spent, request.config.budget.price_per_hour
    return RunSummary(
        status=outcome.status,
        reason=outcome.reason,
        updates=updates,
        budget_s=request.config.budget.seconds,
        spent_s=spent,
        cost=cost_of(price, spent),
        eval=folder.evaluations(),
        result=result_of(folder),
        plasticity=outcome.plasticity,
        ledger=ledger,
        events=folder.events(),
        versions=software_versions(),
        hardware=request.hardware,
    )


def result_of(run: RunRecord) -> Result | None:
    """Return the policy that a run returns; None if it has no checkpoint."""
    checkpoints = run.checkpoints
    if (checkpoint := checkpoints.result) is None:
        return None
    version = version_of(checkpoint)
    if checkpoints.best is None:
        return Result(update=version, why="the last, since no checkpoint was validated")
    rows = run.scored()
    scores = {int(row["update"]): score for row in rows if (score := score_of(row)) is not None}
    left = "" if Selection(rows).chosen == version else " whose checkpoint is left"
    highest = f"the highest mean of two validations in a row{left}, of {len(scores)}"
    why = highest if scores else "checkpoints/best leads to it"
    return Result(update=version, why=why, validation=scores.get(version))

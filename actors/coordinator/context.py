"""What a run is made of."""

from dataclasses import dataclass
from functools import cached_property

from actors.coordinator.budget import Budget
from actors.coordinator.ledger import Ledger, MeteredSampler, Pace
from actors.coordinator.stopping import StopController
from actors.messages import ProblemSet
from actors.protocols import Clock, Engine, Learner, Sampler, Verifier
from actors.storage.run_folder import RunFolder
from conf.schema import Config


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What all parts of the coordinator share.

    max_running: groups that the engines have at once.
    """

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

    @cached_property
    def _pace(self) -> Pace:
        return Pace()

    def metered(self, kind: str, engine: Sampler | None = None) -> MeteredSampler:
        """Return the engines, or one of them, with what they generate counted as `tokens/<kind>`."""
        return MeteredSampler(engine or self.engine, kind, self.ledger, self.clock, self._pace)

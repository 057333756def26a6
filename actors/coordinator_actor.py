"""The Ray shell of a run: starts the actors, hands them to a Coordinator, writes down how it ended."""

import time
import traceback
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from learner.actor import LearnerActor, RemoteLearner

from actors.budget import Budget
from actors.clock import WallClock
from actors.coordinator import Coordinator, Halted, Interrupted, Outcome, Progress, root_cause
from actors.fleet import Fleet
from actors.placement import Placement, Share
from actors.rollout import RemoteEngine, RolloutActor
from actors.run_folder import RunFolder
from conf.schema import Config
from rewards.actor import RemoteVerifier, RewardActor
from rewards.problems import ProblemSet

STACK = ("ray", "torch", "transformers", "peft", "deepspeed", "math-verify", "reasoning-gym")
"""Packages whose versions a summary names, besides vLLM's."""


@dataclass(frozen=True)
class RunRequest:
    """All a run is given. started_at: `time.time()` of the first line of run.py; model_path: a local folder."""

    config: Config
    folder: str
    model_path: str
    placement: Placement
    problems: ProblemSet
    started_at: float


@ray.remote
class CoordinatorActor:
    """One run, as an asynchronous actor: `run` goes on while `progress` and `stop` are answered."""

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._folder = RunFolder(Path(request.folder), request.config.checkpoint.keep_last)
        clock = WallClock()
        config = request.config
        self._budget = Budget(budget_seconds(config), self._folder.spent + (time.time() - request.started_at), clock)
        placement = request.placement
        engines = [RemoteEngine(start_rollout(request, number)) for number in range(len(placement.rollouts))]
        if placement.device == "cuda":
            # vLLM measures the card's free memory while it starts: a learner that comes and goes would upset it.
            ray.get([engine.ready() for engine in engines])
        self._engine = Fleet(engines)
        self._learner = RemoteLearner(start_learner(request, self._folder.adapters))
        self._verifier = RemoteVerifier(
            [
                RewardActor.options(name=f"reward-{number}", num_cpus=0).remote(config.reward)
                for number in range(placement.reward_workers)
            ]
        )
        per_engine = max(config.rollout.max_concurrent_samples // config.rollout.samples_per_problem, 1)
        self._coordinator = Coordinator(
            config,
            self._engine,
            self._learner,
            self._verifier,
            request.problems,
            self._folder,
            self._budget,
            clock,
            max_running=per_engine * len(engines),
            resume_from=self._folder.checkpoint,
        )

    async def progress(self) -> Progress:
        return self._coordinator.progress

    async def stop(self, reason: str) -> None:
        self._coordinator.stop(reason)

    async def run(self) -> dict[str, Any]:
        """Run to the end and write summary.json; its content."""
        try:
            outcome = await self._coordinator.run()
        except BaseException as error:
            cause = root_cause(error)
            (self._folder.path / "failure.log").write_text(traceback.format_exc())
            outcome = Outcome(status_of(cause), str(cause) or type(cause).__name__, None, None)
        summary = self._summarise(outcome)
        self._folder.write_spent(summary["spent_s"])
        self._folder.write_summary(summary)
        return summary

    async def close(self) -> None:
        """Free what the actors hold, engine processes included."""
        for part in (self._engine, self._learner, self._verifier):
            await part.close()

    def _summarise(self, outcome: Outcome) -> dict[str, Any]:
        ledger = self._coordinator.ledger
        base, final = outcome.base, outcome.final
        improved = base and final and final.pass_at[1] > base.pass_at[1]
        return {
            "status": outcome.status,
            "reason": outcome.reason,
            "updates": self._coordinator.updates,
            "budget_s": self._budget.total,
            "spent_s": self._budget.spent,
            "eval": {"base": base and base.summary(), "final": final and final.summary()},
            "best_update": self._coordinator.updates if improved else 0,
            "ledger": {"seconds": ledger.seconds, "counts": ledger.counts},
            "versions": {"vllm": vllm_version(), **{name: version(name) for name in STACK}},
        }


def budget_seconds(config: Config) -> float:
    """The budget in seconds; minutes, when given, replace hours."""
    return config.budget.minutes * 60 if config.budget.minutes is not None else config.budget.hours * 3600


def start_rollout(request: RunRequest, number: int) -> Any:
    share = request.placement.rollouts[number]
    options = actor_options(f"rollout-{number}", share)
    return RolloutActor.options(**options).remote(request.config, request.model_path, share)


def start_learner(request: RunRequest, adapters: Path) -> Any:
    share = request.placement.learner
    options = actor_options("learner-0", share)
    return LearnerActor.options(**options).remote(request.config, request.model_path, share, str(adapters))


def actor_options(name: str, share: Share) -> dict[str, Any]:
    return {"name": name, "num_cpus": len(share.cores), "num_gpus": share.gpus}


def status_of(cause: BaseException) -> str:
    """summary.json's status of a run that ended with this error."""
    if isinstance(cause, Halted):
        return "halted"
    return "interrupted" if isinstance(cause, Interrupted) else "failed"


def vllm_version() -> str:
    import vllm

    return vllm.__version__

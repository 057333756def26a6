"""A whole run over fakes under virtual time; its files are real."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.coordinator.budget import Budget
from actors.coordinator.coordinator import Coordinator
from actors.coordinator.ledger import Ledger
from actors.messages import Outcome, ProblemSet
from actors.rollout.adapter_slots import AdapterSlots
from actors.storage.run_folder import RunFolder
from conf.schema import Config
from launch.plan.virtual_time import VirtualClock, run_virtually
from tests.fakes import FakeEngine, FakeLearner, FakeVerifier, make_problem, make_reward


def make_config(**learner: Any) -> Config:
    config = Config()
    config.learner.problems_per_update = 2
    config.rollout.samples_per_problem = 2
    config.eval.problems, config.eval.n = 4, 2
    config.canary.problems = 2
    config.checkpoint.every = 3
    for key, value in learner.items():
        setattr(config.learner, key, value)
    return config


def make_problems(train: int = 7, heldout: int = 4) -> ProblemSet:
    return ProblemSet(
        train=tuple(make_problem(number) for number in range(train)),
        heldout=tuple(make_problem(100 + number) for number in range(heldout)),
        dropped={},
    )


class Run:
    """A coordinator over fakes in a folder, run under virtual time."""

    def __init__(self, path: Path, config: Config | None = None, seconds: float = 120.0) -> None:
        self.path = path
        self.config = config or make_config()
        self.seconds = seconds
        self.engine = FakeEngine()
        self.learner = FakeLearner(max_staleness=self.config.learner.max_staleness)
        self.verifier = FakeVerifier()
        self.spent = 0.0

    def go(self, meanwhile: Callable[[Coordinator], Any] | None = None, resume: bool = False) -> Outcome:
        self.engine.slots = AdapterSlots(2)  # of a process of its own

        async def scenario() -> Outcome:
            clock = VirtualClock()
            folder = self.folder = RunFolder(self.path)
            folder.recover()
            budget = Budget(self.seconds, folder.spent, clock)
            self.coordinator = Coordinator(
                self.config,
                self.engine,
                self.learner,
                self.verifier,
                make_problems(heldout=self.config.eval.problems),
                folder,
                budget,
                Ledger(clock, folder.spent, folder.ledger()),
                clock,
                max_running=16,
                resume_from=folder.checkpoints.latest if resume else None,
            )
            if meanwhile:
                meanwhile(self.coordinator)
            try:
                return await self.coordinator.run()
            finally:
                self.spent = budget.spent
                self.ledger = self.coordinator.ledger.seconds
                folder.write_spent(budget.spent, self.coordinator.ledger.record)

        return run_virtually(scenario())

    @property
    def spent_so_far(self) -> float:
        return self.seconds - self.coordinator.progress.left

    @property
    def rows(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]


async def judge(group: Any, score: float) -> Any:
    return replace(group, rewards=tuple(make_reward(score) for _ in group.samples))


async def judge_each(group: Any, scores: tuple[float, ...]) -> Any:
    """The same scores for every group of training; evaluations have groups of one."""
    return replace(group, rewards=tuple(make_reward(score) for score in scores[: len(group.samples)]))

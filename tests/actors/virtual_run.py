"""A whole run over fakes under virtual time; its files are real."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.coordinator.budget import Budget
from microbudget_rl.actors.coordinator.context import Outcome, RunContext
from microbudget_rl.actors.coordinator.coordinator import Coordinator
from microbudget_rl.actors.coordinator.ledger import Ledger
from microbudget_rl.actors.coordinator.stopping import StopController
from microbudget_rl.actors.errors import root_cause
from microbudget_rl.actors.messages import EvaluationSet, ProblemSet, Sample
from microbudget_rl.actors.storage.documents import Evaluations
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.fakes import FakeEngine, FakeLearner, FakeVerifier, make_problem
from tests.virtual_time import VirtualClock, run_virtually


def make_config(settings: Mapping[str, Any] | None = None) -> Config:
    """Return the settings of a small run, some of them changed."""
    small = {
        "learner.problems_per_update": 2,
        "rollout.samples_per_problem": 2,
        "eval.problems": 4,
        "eval.n": 2,
        "adapter_check.problems": 2,
        "checkpoint.every": 3,
        "guard.action": "warn",
    }
    return changed(changed(Config(), small), settings or {})


def make_problems(train: int = 7, heldout: int = 4, selection: int = 0) -> ProblemSet:
    return ProblemSet(
        train=tuple(make_problem(number) for number in range(train)),
        heldout=tuple(make_problem(100 + number) for number in range(heldout)),
        filtered_counts={},
        selection=tuple(make_problem(200 + number) for number in range(selection)),
    )


def with_candidates(problems: ProblemSet, source: str) -> ProblemSet:
    """Problems with those of a warm start: the training problems after an example, or seven with solutions."""
    if source == "self":
        shown = tuple(replace(problem, prompt=f"1 + 1 = 2\n{problem.prompt}") for problem in problems.train)
        return replace(problems, candidates=shown)
    solved = range(7 if source else 0)
    texts = tuple(Sample((number, 8, 9), (), f"{number}", "stop") for number in solved)
    return replace(problems, candidates=tuple(make_problem(300 + number) for number in solved), solutions=texts)


NO_PROBLEMS = make_problems(0, 0)


def make_context(
    config: Config,
    problems: ProblemSet,
    folder: RunFolder,
    seconds: float,
    engine: Any,
    learner: FakeLearner,
    verifier: Any,
    max_running: int = 16,
) -> RunContext:
    """A run of these actors in virtual time, after all that its folder knows. seconds: of the budget."""
    clock = VirtualClock()
    budget = Budget(seconds, folder.spent, clock, policies=config.final_policies)
    ledger = Ledger(clock, folder.spent, folder.ledger())
    return RunContext(
        config=config,
        problems=problems,
        engine=engine,
        learner=learner,
        verifier=verifier,
        folder=folder,
        budget=budget,
        ledger=ledger,
        clock=clock,
        stopping=StopController(clock, config.budget.grace_s),
        max_running=max_running,
    )


def collapsing(versions: set[int]) -> Callable[[int], dict[str, float]]:
    """Return metrics in which the update that makes one of these versions collapses, the first time."""

    def metrics(version: int) -> dict[str, float]:
        collapsed = version in versions
        versions.discard(version)
        distance, reward = (9.0, 0.3) if collapsed else (0.01, 0.5)
        return {"policy/entropy": 1.5, "policy/kl_to_base": distance, "reward/mean": reward}

    return metrics


class Run:
    """A coordinator over fakes in a folder, run under virtual time."""

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None, seconds: float = 120.0) -> None:
        self.path = path
        self.config = make_config(settings)
        self.seconds = seconds
        self.engine = FakeEngine()
        self.learner = FakeLearner()
        self.verifier = FakeVerifier()
        self.benchmarks: tuple[EvaluationSet, ...] = ()
        self.spent = 0.0

    def change(self, settings: Mapping[str, Any]) -> None:
        self.config = changed(self.config, settings)

    def fail(self, *stops: float) -> BaseException:
        """Begin or resume a run that fails, and return why."""
        with pytest.raises(ExceptionGroup) as caught:
            self.go(*stops)
        return root_cause(caught.value)

    def go(self, *stops: float) -> Outcome:
        """Begin or resume the run. stops: when it is told to stop, in seconds."""
        return run_virtually(self.process(*stops))

    async def process(self, *stops: float) -> Outcome:
        """As `go`, in the time of the running loop."""
        for actor in (self.engine, self.learner):  # in processes of their own
            actor.start_anew()
        self.learner.max_staleness = self.config.learner.max_staleness
        folder = self.folder = RunFolder(self.path)
        folder.recover()
        context = make_context(
            self.config, self.problems, folder, self.seconds, self.engine, self.learner, self.verifier
        )
        self.coordinator = Coordinator(context)
        for seconds in stops:
            asyncio.get_running_loop().call_later(seconds, context.stopping.stop, "SIGTERM")
        try:
            return await self.coordinator.run()
        finally:
            self.spent = context.budget.spent
            self.ledger = context.ledger.seconds
            folder.write_spent(self.spent, context.ledger.record)
            await folder.flush()

    @property
    def problems(self) -> ProblemSet:
        validation = self.config.validation
        found = make_problems(heldout=self.config.eval.problems, selection=validation.every and validation.problems)
        return with_candidates(replace(found, benchmarks=self.benchmarks), self.config.warm_start.source)

    @property
    def eval(self) -> Evaluations:
        return self.folder.evaluations()

    @property
    def spent_so_far(self) -> float:
        return self.seconds - self.coordinator.progress.left

    @property
    def latest(self) -> str:
        """The name of the latest checkpoint."""
        return (self.path / "checkpoints" / "latest").resolve().name

    @property
    def updates(self) -> list[float]:
        """The updates of the rows, in their order."""
        return [row["update"] for row in self.rows]

    def series(self, name: str) -> dict[float, float]:
        """A metric by update, where it is known."""
        return {row["update"]: row[name] for row in self.rows if name in row}

    @property
    def rows(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

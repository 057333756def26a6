"""One run of the study of `algorithm.mismatch`: a fresh adapter trained in turns, without Ray, at exact staleness.

Engine, learner and verifier are the real ones. The groups of update u are drawn by version u − η, the first by
version 0.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from actors.coordinator.data_order import ProblemOrder
from actors.messages import AdapterRef, Batch, Group, Problem, ProblemSet, Sampling
from actors.protocols import Sampler
from actors.seeds import request_seed
from conf.load import load
from conf.schema import Config
from launch.hardware.machine import detect
from launch.session.resume import resolve_dtype
from rewards.pool import VerifierPool

DEFAULT = "bypass"

UNCORRECTED = "none"
"""The learner's own probabilities as the old policy, and no weight for what the engine's differ by. No setting asks for
it: it is what the corrections are held against."""

HELDOUT_SAMPLES = 2

COLLAPSE = 0.5
"""A run has collapsed when it ends below this share of its best held-out pass@1."""


@dataclass(frozen=True)
class Size:
    """How much a run does.

    updates: of the adapter
    problems, samples: of an update
    every: updates between evaluations
    heldout: problems of an evaluation
    """

    updates: int = 32
    problems: int = 8
    samples: int = 8
    every: int = 8
    heldout: int = 128


@dataclass(frozen=True)
class Cell:
    """What makes a run: a mode, a constant learning rate, how many versions its batches are behind, and a seed."""

    mode: str
    rate: float
    staleness: int
    seed: int

    @property
    def settings(self) -> tuple[str, ...]:
        mode = [f"algorithm.mismatch={'token_tis' if self.mode == UNCORRECTED else self.mode}"]
        if self.mode != DEFAULT:
            mode += [f"algorithm.{bound}=null" for bound in ("clip_low", "clip_high", "dual_clip")]
        return (
            *mode,
            f"learner.learning_rate={self.rate}",
            "learner.schedule=constant",
            f"learner.max_staleness={self.staleness}",
            f"run.seed={self.seed}",
        )


@dataclass(frozen=True)
class Rollouts:
    """Draws groups and has them judged."""

    engine: Sampler
    verifier: VerifierPool
    config: Config

    async def draw(
        self, problems: Iterable[tuple[int, Problem]], policy: AdapterRef, samples: int, purpose: str
    ) -> tuple[Group, ...]:
        """Return a group for every numbered problem."""
        rollout, seed = self.config.rollout, self.config.run.seed

        async def group(index: int, problem: Problem) -> Group:
            request = request_seed(seed, purpose, index)
            sampling = Sampling(samples, rollout.max_response_tokens, rollout.temperature, 1.0, request)
            return await self.verifier.score(await self.engine.generate(index, problem, policy, sampling))

        return tuple(await asyncio.gather(*(group(*numbered) for numbered in problems)))

    async def accuracy(self, problems: Sequence[Problem], policy: AdapterRef) -> float:
        """Return pass@1, drawn as in training."""
        groups = await self.draw(enumerate(problems), policy, HELDOUT_SAMPLES, "heldout")
        return fmean(reward.verdict.score for group in groups for reward in group.rewards)


def configure(model: str, size: Size, settings: Iterable[str] = ()) -> Config:
    """Return the quickstart's settings for the small model."""
    fixed = (
        f"model.path={model}",
        "data.examples=[]",
        "rollout.max_prompt_tokens=16",
        "rollout.max_response_tokens=8",
        f"learner.problems_per_update={size.problems}",
        f"rollout.samples_per_problem={size.samples}",
        f"rollout.max_concurrent_samples={size.problems * size.samples}",
        f"eval.problems={size.heldout}",
    )
    config = load(["conf=quickstart", *fixed, *settings])
    resolve_dtype(config, detect("cpu"))
    return config


async def train(
    cell: Cell, size: Size, engine: Any, verifier: VerifierPool, problems: ProblemSet, model: str, number: int
) -> dict[str, Any]:
    """Return what came of a run. engine: with `load`, `retire` and `generate`. number: of no other run on it."""
    from learner.learner import LoraLearner

    class Uncorrected(LoraLearner):
        """Takes its own probabilities for the engine's, so that every weight is 1."""

        def _observe(self, *arguments: Any) -> Any:
            observed = super()._observe(*arguments)
            return replace(observed, engine=observed.old)

    config = configure(model, size, cell.settings)
    rollouts, order = Rollouts(engine, verifier, config), ProblemOrder(problems.train, cell.seed)
    began, scores, rows = perf_counter(), [], []
    batches: deque[tuple[Group, ...]] = deque()
    with TemporaryDirectory() as folder:
        learner = (Uncorrected if cell.mode == UNCORRECTED else LoraLearner)(config, model, folder)
        learner.restore(None, number)
        policy = learner.publish()
        await engine.load(policy)
        for version in range(size.updates + 1):
            if version % size.every == 0:
                scores.append(await rollouts.accuracy(problems.heldout, policy))
            if version == size.updates:
                break
            while len(batches) <= cell.staleness:
                first = size.problems * (version + len(batches))
                stream = [(index, order.problem(index)) for index in range(first, first + size.problems)]
                batches.append(await rollouts.draw(stream, policy, size.samples, "rollout"))
            learner.accumulate(Batch(version, batches.popleft()))
            stats = learner.step(0.0)
            rows.append(stats.metrics)
            await engine.load(stats.adapter)
            await engine.retire(policy)
            policy = stats.adapter
        await engine.retire(policy)
    return {**asdict(cell), "updates": size.updates, "seconds": perf_counter() - began, **describe(scores, rows)}


def describe(scores: Sequence[float], rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return a run's figures. scores: held-out pass@1, the first before training; rows: metrics of its updates."""
    learned = [row for row in rows if "policy/entropy" in row]
    names = {"entropy": "policy/entropy", "effective_share": "mismatch/effective_share", "grad_norm": "grad_norm"}
    return {
        "scores": scores,
        "end": scores[-1],
        "best": max(scores),
        "collapsed": scores[-1] < COLLAPSE * max(scores),
        **{name: [row[metric] for row in learned] for name, metric in names.items()},
    }

"""Studies of many runs of the small model: fresh adapters trained in turns, without Ray, at exact staleness.

Learner and verifier are the real ones, and one engine serves all runs. The groups of update u are drawn by
version u − η, the first by version 0. Every finished run is a line of a file, so that a study goes on where it was cut
off.
"""

import asyncio
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from actors.coordinator.data_order import ProblemOrder
from actors.evaluation.statistics import over_seeds
from actors.messages import AdapterRef, Batch, Group, Problem, ProblemSet, Sampling
from actors.protocols import Sampler
from actors.seeds import request_seed
from conf.load import load
from conf.schema import Config
from launch.benches import small_model
from launch.hardware.machine import detect
from launch.session.resume import resolve_dtype
from rewards.pool import VerifierPool

if TYPE_CHECKING:
    from learner.learner import LoraLearner

COLLAPSE = 0.5
"""A run has collapsed when it ends below this share of its best held-out pass@1."""


@dataclass(frozen=True)
class Size:
    """How much a run does.

    updates: of the adapter
    problems, samples: of an update
    every: updates between evaluations
    heldout, heldout_samples: problems of an evaluation, and samples of each
    """

    updates: int = 32
    problems: int = 8
    samples: int = 8
    every: int = 8
    heldout: int = 128
    heldout_samples: int = 2


@dataclass(frozen=True)
class Cell:
    """What makes a run. Studies add what they vary.

    rate: a constant learning rate
    staleness: how many versions batches are behind
    """

    rate: float
    staleness: int
    seed: int

    @property
    def settings(self) -> tuple[str, ...]:
        return (
            f"learner.learning_rate={self.rate}",
            "learner.schedule=constant",
            f"learner.max_staleness={self.staleness}",
            f"run.seed={self.seed}",
        )

    def learner(self) -> "type[LoraLearner]":
        from learner.learner import LoraLearner

        return LoraLearner


Outcome = dict[str, Any]
"""What came of a run, with the fields of its cell."""


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

    async def accuracy(self, problems: Sequence[Problem], policy: AdapterRef, samples: int) -> float:
        """Return pass@1, drawn as in training."""
        groups = await self.draw(enumerate(problems), policy, samples, "heldout")
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


def finished(file: Path) -> list[Outcome]:
    """Return what came of the runs so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def missing(wanted: Iterable[Cell], runs: Sequence[Outcome]) -> Cell | None:
    """Return the first cell that has not been carried out, None if there is none."""
    return next((cell for cell in wanted if not any(asdict(cell).items() <= run.items() for run in runs)), None)


def small_model_at(folder: Path, width: int = small_model.WIDTH) -> str:
    """Return the folder of the small model, which is made if it is not there."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as other:
            small_model.make(Path(other, "model"), width=width)
            Path(other, "model").rename(folder)
    return str(folder)


def vllm_engine(config: Config, model: str) -> Any:
    from actors.rollout.vllm_engine import RolloutEngine
    from actors.runtime.placement import Share

    return RolloutEngine(config, model, Share(cores=tuple(sorted(os.sched_getaffinity(0)))))


async def study(
    wanted: Callable[[Sequence[Outcome]], Iterable[Cell]],
    size: Size,
    model: str,
    file: Path,
    start: Callable[[Config, str], Any],
) -> None:
    """Carry out the runs that the file does not have yet.

    wanted: which runs there are to be, given those that are finished
    start: starts an engine for a model
    """
    import torch
    from transformers import AutoTokenizer

    from rewards.problems.loading import load
    from rewards.reward import reward_function

    runs = finished(file)
    if not missing(wanted(runs), runs):
        return
    config = configure(model, size)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    problems = load(config, AutoTokenizer.from_pretrained(model))
    engine = start(config, model)
    verifier = VerifierPool(reward_function(config), 1)
    number = 0
    try:
        while cell := missing(wanted(runs), runs):
            number += 1
            runs.append(await train(cell, size, engine, verifier, problems, model, number))
            with file.open("a") as lines:
                lines.write(json.dumps(runs[-1]) + "\n")
            print(f"{cell}: held-out pass@1 {runs[-1]['end']:.3f}, {runs[-1]['seconds']:.0f} s", flush=True)
    finally:
        await verifier.close()
        await engine.close()


async def train(
    cell: Cell, size: Size, engine: Any, verifier: VerifierPool, problems: ProblemSet, model: str, number: int
) -> Outcome:
    """Return what came of a run. engine: with `load`, `retire` and `generate`. number: of no other run on it."""
    config = configure(model, size, cell.settings)
    rollouts, order = Rollouts(engine, verifier, config), ProblemOrder(problems.train, cell.seed)
    began, scores, rows = perf_counter(), [], []
    batches: deque[tuple[Group, ...]] = deque()
    with TemporaryDirectory() as folder:
        learner = cell.learner()(config, model, folder)
        learner.restore(None, number)
        policy = learner.publish()
        await engine.load(policy)
        for version in range(size.updates + 1):
            if version % size.every == 0:
                scores.append(await rollouts.accuracy(problems.heldout, policy, size.heldout_samples))
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


def describe(scores: Sequence[float], rows: Sequence[dict[str, float]]) -> Outcome:
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


def in_words(runs: Sequence[Outcome]) -> str:
    """Say how the runs of a cell ended, over its seeds."""
    end = over_seeds([run["end"] for run in runs])
    reach = "" if end.interval is None else f" ± {end.interval[1] - end.value:.3f}"
    collapsed = sum(run["collapsed"] for run in runs)
    return f"{end.value:.3f}{reach} in the end, {fmean(run['best'] for run in runs):.3f} at best; " + (
        f"{collapsed} of {len(runs)} runs collapsed."
    )

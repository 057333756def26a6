"""pass@1 on held-out problems."""

import asyncio
from dataclasses import dataclass
from typing import Any

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Engine, Verifier
from actors.seeds import request_seed
from conf.schema import Config
from rewards.estimate import bootstrap_interval, pass_at_k


@dataclass(frozen=True)
class Evaluation:
    """`problems` problems, `n` samples each; pass_at[k] and the 95 % bootstrap interval of pass@1 over problems.

    seconds: wall-clock it took.
    """

    problems: int
    n: int
    pass_at: dict[int, float]
    ci95: tuple[float, float]
    mean_length: float
    truncated: float
    seconds: float
    groups: tuple[Group, ...]

    def summary(self) -> dict[str, Any]:
        """The shape of summary.json: shares in 0–1, lengths in tokens."""
        return {
            **{f"pass@{k}": value for k, value in self.pass_at.items()},
            "n": self.n,
            "problems": self.problems,
            "ci95": list(self.ci95),
            "mean_length": self.mean_length,
            "truncated": self.truncated,
            "seconds": self.seconds,
        }


async def evaluate(
    config: Config,
    engine: Engine,
    verifier: Verifier,
    problems: tuple[Problem, ...],
    adapter: AdapterRef | None,
    clock: Clock,
    deadline: float,
) -> Evaluation | None:
    """Draw one sample of every problem a round, `eval.n` rounds, and judge them; None if not even one round fits.

    `deadline` is a time of `clock`. A round that does not finish by then is dropped whole, so that what is left is an
    unbiased estimate from fewer samples. Base and trained policy see the same problems, seeds and limits.
    """
    settings = config.eval
    started = clock.now()
    rounds: list[list[Group]] = []
    for number in range(settings.n):
        try:
            async with asyncio.timeout(max(deadline - clock.now(), 0.0)), asyncio.TaskGroup() as tasks:
                drawn = [
                    tasks.create_task(
                        _judged(
                            engine,
                            verifier,
                            index,
                            problem,
                            adapter,
                            Sampling(
                                samples=1,
                                max_tokens=settings.max_response_tokens or config.rollout.max_response_tokens,
                                temperature=settings.temperature,
                                top_p=settings.top_p,
                                seed=request_seed(config.run.seed, "eval", number * len(problems) + index),
                            ),
                        )
                    )
                    for index, problem in enumerate(problems)
                ]
        except TimeoutError:
            break
        rounds.append([task.result() for task in drawn])
    return _estimate(rounds, clock.now() - started) if rounds else None


async def _judged(
    engine: Engine, verifier: Verifier, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
) -> Group:
    return await verifier.score(await engine.generate(index, problem, adapter, sampling))


def _estimate(rounds: list[list[Group]], seconds: float) -> Evaluation:
    n = len(rounds)
    groups = [group for drawn in rounds for group in drawn]
    samples = [group.samples[0] for group in groups]
    correct = [
        sum(group.rewards[0].verdict.score == 1.0 for group in of_problem) for of_problem in zip(*rounds, strict=True)
    ]
    return Evaluation(
        problems=len(correct),
        n=n,
        pass_at={k: pass_at_k(correct, n, k) for k in sorted({1, 8, 16, n}) if k <= n},
        ci95=bootstrap_interval([c / n for c in correct]),
        mean_length=sum(len(sample.token_ids) for sample in samples) / len(samples),
        truncated=sum(sample.truncated for sample in samples) / len(samples),
        seconds=seconds,
        groups=tuple(groups),
    )

"""pass@1 on held-out problems."""

import asyncio
from dataclasses import dataclass
from typing import Any

from actors.evaluation.statistics import pass_at_k, share_interval
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Sampler, Verifier
from actors.seeds import request_seed
from conf.schema import Config

ROOMY = 3.0
"""With time for so many rounds, the first one is drawn at once; the trained policy may be slower than expected."""

FIRST_PART, PART = 0.25, 0.5
"""Otherwise its first part is at most so much of it, from which the pace is learned, and each part is meant to take so
much of the time left: small parts take longer than their share."""


@dataclass(frozen=True)
class Evaluation:
    """The first `problems` held-out problems, `n` samples each; pass_at[k] and the 95 % bootstrap interval of pass@1
    over problems.

    seconds: wall-clock it took. round_seconds: of its quickest round of all problems; the first one may have been
    held up by the engine's first steps.
    """

    problems: int
    n: int
    pass_at: dict[int, float]
    ci95: tuple[float, float]
    mean_length: float
    truncated: float
    seconds: float
    round_seconds: float
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
            "round_seconds": self.round_seconds,
        }


async def evaluate(
    config: Config,
    engine: Sampler,
    verifier: Verifier,
    problems: tuple[Problem, ...],
    adapter: AdapterRef | None,
    clock: Clock,
    n: int,
    deadline: float,
    round_s: float = 0.0,
) -> Evaluation | None:
    """Draw one sample of every problem a round, `n` rounds, and judge them; None if not even one problem fits.

    `deadline` is a time of `clock`, `round_s` the seconds a round is expected to take, 0 while unknown. A round that
    does not finish by the deadline is dropped whole, so that what is left is an unbiased estimate from fewer samples.
    Where time is short, the problems of the first round are drawn in parts, in their (random) order, and what is left
    may be an estimate from fewer of them. Base and trained policy see the same problems, seeds and limits.
    """

    async def draw(number: int, indices: range) -> list[Group] | None:
        seeds = {index: request_seed(config.run.seed, "eval", number * len(problems) + index) for index in indices}
        try:
            async with asyncio.timeout(max(deadline - clock.now(), 0.0)), asyncio.TaskGroup() as tasks:
                drawn = [
                    tasks.create_task(
                        judged_sample(config, engine, verifier, index, problems[index], adapter, seeds[index])
                    )
                    for index in indices
                ]
        except TimeoutError:
            return None
        return [task.result() for task in drawn]

    started = clock.now()
    rounds: list[list[Group]] = []
    times: list[float] = []
    if round_s and deadline - started < ROOMY * round_s:
        first: list[Group] = []
        size = len(problems) * min(FIRST_PART, PART * (deadline - started) / round_s)
        while len(first) < len(problems) and (
            part := await draw(0, range(len(first), min(len(first) + max(1, int(size)), len(problems))))
        ):
            first.extend(part)
            now = clock.now()
            size = len(first) * PART * (deadline - now) / max(now - started, 1e-9)
        if not first:
            return None
        rounds.append(first)
        times.append((clock.now() - started) * len(problems) / len(first))
        if len(first) < len(problems):
            return _estimate(rounds, times, clock.now() - started)
    while len(rounds) < n:
        began = clock.now()
        drawn = await draw(len(rounds), range(len(problems)))
        if drawn is None:
            break
        rounds.append(drawn)
        times.append(clock.now() - began)
    return _estimate(rounds, times, clock.now() - started) if rounds else None


async def judged_sample(
    config: Config,
    engine: Sampler,
    verifier: Verifier,
    index: int,
    problem: Problem,
    adapter: AdapterRef | None,
    seed: int,
) -> Group:
    """One judged sample of a problem, drawn as `eval` says."""
    settings = config.eval
    sampling = Sampling(1, response_limit(config), settings.temperature, settings.top_p, seed)
    return await verifier.score(await engine.generate(index, problem, adapter, sampling))


def response_limit(config: Config) -> int:
    """Tokens of an evaluated response at most."""
    return config.eval.max_response_tokens or config.rollout.max_response_tokens


def _estimate(rounds: list[list[Group]], times: list[float], seconds: float) -> Evaluation:
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
        ci95=share_interval([c / n for c in correct]),
        mean_length=sum(len(sample.token_ids) for sample in samples) / len(samples),
        truncated=sum(sample.truncated for sample in samples) / len(samples),
        seconds=seconds,
        round_seconds=min(times),
        groups=tuple(groups),
    )

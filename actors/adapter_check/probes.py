"""Questions to the engines whose answers the canary compares with the learner's view."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from actors.adapter_check.canary import Answers, Canary, Finding, Judgement
from actors.errors import Halted
from actors.messages import AdapterRef, Problem, Sampling
from actors.protocols import Learner, Sampler
from actors.seeds import request_seed
from conf.schema import Config

T = TypeVar("T")


class Probes:
    """The same problems, limits and seeds whenever asked."""

    def __init__(
        self, config: Config, problems: Sequence[Problem], metered: Callable[[Sampler], Sampler] = lambda engine: engine
    ) -> None:
        """metered: makes an engine one whose tokens are counted."""
        self._config = config
        self._metered = metered
        self._problems = problems[: config.canary.problems]

    def shortened(self, tokens: int) -> "Probes":
        """With only so many tokens of each prompt, the last ones."""
        cut = tuple(replace(problem, prompt_ids=problem.prompt_ids[-tokens:]) for problem in self._problems)
        return Probes(self._config, cut, self._metered)

    async def ask(self, engine: Sampler, adapter: AdapterRef | None) -> tuple[Answers, ...]:
        """The answers of every single engine behind this one."""
        metered = self._metered(engine)
        by_problem = await asyncio.gather(
            *(
                metered.probe(
                    -1 - number,
                    problem,
                    adapter,
                    Sampling(
                        samples=1,
                        max_tokens=self._config.canary.tokens,
                        temperature=self._config.rollout.temperature,
                        top_p=1.0,
                        seed=request_seed(self._config.run.seed, "canary", number),
                    ),
                )
                for number, problem in enumerate(self._problems)
            )
        )
        return tuple(zip(*by_problem, strict=True))

    async def judge(self, canary: Canary, learner: Learner, answers: tuple[Answers, ...]) -> Judgement:
        """What the canary says of the answers of all engines to one adapter; Halted if it is not served faithfully."""
        scores = await learner.score(tuple(chain.from_iterable(answers)))
        judgement = canary.judge(answers, tuple(batched(scores, len(self._problems))))
        if judgement.finding is Finding.DISAGREES:
            raise Halted(f"canary: {judgement.diagnosis}")
        return judgement


def batched(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    """Consecutive parts of this size."""
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))

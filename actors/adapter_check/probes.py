"""Probe requests, whose answers from the engines are compared with the learner's log-probabilities."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Sampler
from actors.seeds import request_seed
from conf.schema import Config

Answers = tuple[Group, ...]
"""One engine's answers to the probe problems, in their order; one sample each."""


class Probes:
    """Asks engines the same problems under the same limits and seeds every time."""

    def __init__(
        self, config: Config, problems: Sequence[Problem], metered: Callable[[Sampler], Sampler] = lambda engine: engine
    ) -> None:
        """metered: makes an engine one whose tokens are counted."""
        self._config = config
        self._metered = metered
        self._problems = problems[: config.canary.problems]

    def shortened(self, tokens: int) -> "Probes":
        """Return the same problems with only the last so many tokens of each prompt."""
        cut = tuple(replace(problem, prompt_ids=problem.prompt_ids[-tokens:]) for problem in self._problems)
        return Probes(self._config, cut, self._metered)

    async def ask(self, engine: Sampler, adapter: AdapterRef | None) -> tuple[Answers, ...]:
        """Return the answers of every single engine behind this one."""
        metered = self._metered(engine)
        by_problem = await asyncio.gather(
            *(
                metered.probe(-1 - number, problem, adapter, self._sampling(number))
                for number, problem in enumerate(self._problems)
            )
        )
        return tuple(zip(*by_problem, strict=True))

    def _sampling(self, number: int) -> Sampling:
        return Sampling(
            samples=1,
            max_tokens=self._config.canary.tokens,
            temperature=self._config.rollout.temperature,
            top_p=1.0,
            seed=request_seed(self._config.run.seed, "canary", number),
        )


def logprobs_of(answers: Answers) -> list[float]:
    """Return the engine's log-probabilities of all tokens of its answers."""
    return [logprob for group in answers for sample in group.samples for logprob in sample.logprobs]

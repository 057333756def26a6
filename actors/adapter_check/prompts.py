"""Prompts of the adapter check: the engines respond, and the learner computes log-probabilities of the same tokens."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, cycle, islice
from math import inf, isfinite
from statistics import fmean

from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Request, Sampling
from microbudget_rl.actors.models.sizes import longest_sample
from microbudget_rl.actors.protocols import Sampler
from microbudget_rl.conf.schema import Config

Responses = tuple[Group, ...]
"""One engine's responses to the prompts, in their order: one sample each."""

SAME = 1e-3
"""Log-probabilities that differ by less come from the same weights; a batch of other requests moves them a little."""


class CheckPrompts:
    """Sends engines the same prompts with the same limits and seeds every time."""

    def __init__(
        self, config: Config, problems: Sequence[Problem], metered: Callable[[Sampler], Sampler] = lambda engine: engine
    ) -> None:
        """metered: wraps an engine so that its tokens are counted."""
        self._config = config
        self._metered = metered
        self._problems = problems[: config.adapter_check.problems]

    def shortened(self, tokens: int) -> "CheckPrompts":
        """Return the same prompts cut to their last tokens."""
        cut = tuple(replace(problem, prompt_ids=problem.prompt_ids[-tokens:]) for problem in self._problems)
        return CheckPrompts(self._config, cut, self._metered)

    def lengthened(self, tokens: int) -> "CheckPrompts":
        """Return one prompt: all of them in turn up to this length, or up to what the context has room for."""
        room = longest_sample(self._config) - self._config.adapter_check.tokens
        ids = cycle(chain.from_iterable(problem.prompt_ids for problem in self._problems))
        long = replace(self._problems[0], prompt_ids=tuple(islice(ids, min(tokens, room))))
        return CheckPrompts(self._config, (long,), self._metered)

    async def ask(self, engine: Sampler, adapter: AdapterRef | None) -> tuple[Responses, ...]:
        """Return the responses of every single engine behind this one."""
        metered = self._metered(engine)
        by_problem = await asyncio.gather(
            *(
                metered.generate_on_each(Request(-1 - number, problem, adapter, self._sampling(number)))
                for number, problem in enumerate(self._problems)
            )
        )
        return tuple(zip(*by_problem, strict=True))

    def _sampling(self, number: int) -> Sampling:
        tokens = self._config.adapter_check.tokens
        return rollout_sampling(self._config, "adapter_check", number, samples=1, max_tokens=tokens)


def logprobs_of(responses: Responses) -> list[float]:
    """Return the engine's log-probabilities of all tokens of its responses."""
    return [logprob for group in responses for sample in group.samples for logprob in sample.logprobs]


def tokens_of(responses: Responses) -> list[list[int]]:
    return [list(group.samples[0].token_ids) for group in responses]


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the mean |Δ log p|; infinite where that is not a number, so that no limit allows it."""
    mean = fmean(abs(a - b) for a, b in zip(left, right, strict=True))
    return mean if isfinite(mean) else inf

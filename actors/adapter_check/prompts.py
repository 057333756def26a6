"""Prompts of the adapter check: the engines respond, and the learner computes log-probabilities of the same tokens."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from math import inf, isfinite
from statistics import fmean

from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Request
from microbudget_rl.actors.models.sizes import longest_sample
from microbudget_rl.actors.protocols import Sampler
from microbudget_rl.conf.schema import Config

Responses = tuple[Group, ...]
"""One engine's responses to the prompts, in their order: one sample each."""

SAME = 1e-3
"""Log-probabilities that differ by less come from the same weights; a batch of other requests moves them a little."""


@dataclass
class CheckPrompts:
    """Sends engines the same prompts with the same limits and seeds every time.

    metered: wraps an engine so that its tokens are counted.
    """

    config: Config
    problems: Sequence[Problem]
    metered: Callable[[Sampler], Sampler] = lambda engine: engine

    def __post_init__(self) -> None:
        self.problems = self.problems[: self.config.adapter_check.problems]

    def shortened(self, tokens: int) -> "CheckPrompts":
        """Return the same prompts cut to their last tokens."""
        cut = tuple(replace(problem, prompt_ids=problem.prompt_ids[-tokens:]) for problem in self.problems)
        return replace(self, problems=cut)

    def lengthened(self, tokens: int) -> "CheckPrompts":
        """Return one prompt: all of them in turn up to this length, or up to what the context has room for."""
        room = longest_sample(self.config) - self.config.adapter_check.tokens
        ids = cycle(chain.from_iterable(problem.prompt_ids for problem in self.problems))
        long = replace(self.problems[0], prompt_ids=tuple(islice(ids, min(tokens, room))))
        return replace(self, problems=(long,))

    async def ask(self, engine: Sampler, adapter: AdapterRef | None) -> tuple[Responses, ...]:
        """Return the responses of every single engine behind this one."""
        config, metered = self.config, self.metered(engine)

        async def respond(number: int, problem: Problem) -> tuple[Group, ...]:
            tokens = config.adapter_check.tokens
            sampling = rollout_sampling(config, "adapter_check", number, samples=1, max_tokens=tokens)
            return await metered.generate_on_each(Request(-1 - number, problem, adapter, sampling))

        by_problem = await asyncio.gather(*(respond(*numbered) for numbered in enumerate(self.problems)))
        return tuple(zip(*by_problem, strict=True))


def logprobs_of(responses: Responses) -> list[float]:
    """Return the engine's log-probabilities of all tokens of its responses."""
    return [logprob for group in responses for sample in group.samples for logprob in sample.logprobs]


def tokens_of(responses: Responses) -> list[list[int]]:
    return [list(group.samples[0].token_ids) for group in responses]


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the mean |Δ log p|; infinite where that is not a number, so that no limit allows it."""
    mean = fmean(abs(a - b) for a, b in zip(left, right, strict=True))
    return mean if isfinite(mean) else inf

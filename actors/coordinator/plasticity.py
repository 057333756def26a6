"""How far a run has moved the model: on fixed responses of the base, and in the adapter's weights."""

import asyncio
from typing import Any

from actors.coordinator.context import RunContext
from actors.coordinator.heldout import LAST_MOMENT_S
from actors.errors import LearnerDied
from actors.messages import Group, Inspection, Sample, Sampling
from actors.seeds import request_seed

PROBLEMS = 16
TOKENS = 512
"""Responses that are looked at, and the most tokens of each: a few seconds of the learner at the sizes of a budget."""


class Plasticity:
    """Draws responses of the base model once in a run, and has the learner compare itself with the base on them.

    The tokens are the same before and after. All runs on the same problems draw them with the same seeds.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._engine = run.metered("eval")
        self._problems = (run.problems.heldout or run.problems.train)[:PROBLEMS]
        self._groups: tuple[Group, ...] = ()

    async def draw(self) -> None:
        """Get the base model's responses, or those drawn before."""
        if (responses := self._run.folder.probe()) is None:
            await self._run.engine.ready()
            drawn = await asyncio.gather(*(self._respond(number) for number in range(len(self._problems))))
            responses = [list(group.samples[0].token_ids) for group in drawn]
            self._run.folder.write_probe(responses)
        self._groups = tuple(
            Group(-1 - number, problem, None, (Sample(tuple(ids), (), "", "stop"),))
            for number, (problem, ids) in enumerate(zip(self._problems, responses, strict=True))
        )

    async def inspect(self) -> Inspection | None:
        """The learner's view of the responses; None if it died or takes longer than the budget. Its duration is learned
        for the reserve.
        """
        if not self._groups:
            return None
        started = self._run.clock.now()
        try:
            async with asyncio.timeout(self._run.budget.left - LAST_MOMENT_S):
                found = await self._run.learner.inspect(self._groups)
        except (LearnerDied, TimeoutError):  # the next call to the learner tells of its death
            return None
        self._run.budget.expect("inspect", self._run.clock.now() - started)
        return found

    async def measure(self, version: int) -> dict[str, Any] | None:
        """`plasticity` of summary.json; None if the learner does not answer, or not for this version."""
        found = await self.inspect()
        if found is None or found.version != version:
            return None
        return {
            "probe_entropy": {
                "before": found.base_entropy,
                "after": found.entropy,
                "change": found.entropy / found.base_entropy - 1 if found.base_entropy else 0.0,
            },
            "kl_to_base": found.kl_to_base,
            "adapter_norm": found.adapter_norm,
            "effective_rank": found.effective_rank,
            "rank": self._run.config.lora.rank,
        }

    async def _respond(self, number: int) -> Group:
        rollout = self._run.config.rollout
        sampling = Sampling(
            samples=1,
            max_tokens=min(rollout.max_response_tokens, TOKENS),
            temperature=rollout.temperature,
            top_p=1.0,
            seed=request_seed(0, "plasticity", number),
        )
        return await self._engine.generate(-1 - number, self._problems[number], None, sampling)

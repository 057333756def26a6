"""How far a run has moved the model: on fixed responses of the base, and in the adapter's weights."""

import asyncio
from typing import Any

from actors.coordinator.budget import Budget
from actors.coordinator.heldout import LAST_MOMENT_S
from actors.errors import LearnerDied
from actors.messages import Group, Inspection, Problem, Sample, Sampling
from actors.protocols import Clock, Engine, Learner
from actors.seeds import request_seed
from actors.storage.run_folder import RunFolder
from conf.schema import Config

PROBLEMS = 16
TOKENS = 512
"""Responses that are looked at, and the most tokens of each: a few seconds of the learner at the sizes of a budget."""


class Plasticity:
    """Draws responses of the base model once in a run, and has the learner compare itself with the base on them.

    They are the same tokens before and after, and those of all runs on the same problems have the same seeds. What an
    inspection takes is learned while the learner waits for its first batch anyway.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        learner: Learner,
        problems: tuple[Problem, ...],
        folder: RunFolder,
        budget: Budget,
        clock: Clock,
    ) -> None:
        self._config = config
        self._engine = engine
        self._learner = learner
        self._problems = problems[:PROBLEMS]
        self._folder = folder
        self._budget = budget
        self._clock = clock
        self._groups: tuple[Group, ...] = ()

    async def draw(self) -> None:
        """Get the base model's responses, or those drawn before."""
        if (responses := self._folder.probe()) is None:
            await self._engine.ready()
            drawn = await asyncio.gather(*(self._respond(number) for number in range(len(self._problems))))
            responses = [list(group.samples[0].token_ids) for group in drawn]
            self._folder.write_probe(responses)
        self._groups = tuple(
            Group(-1 - number, problem, None, (Sample(tuple(ids), (), "", "stop"),))
            for number, (problem, ids) in enumerate(zip(self._problems, responses, strict=True))
        )

    async def rehearse(self) -> None:
        """Have the budget learn what an inspection takes."""
        await self._inspect()

    async def measure(self, version: int) -> dict[str, Any] | None:
        """What `plasticity` is in summary.json; None if the learner is lost or stands at another version, or if what is
        left of the budget is too short.
        """
        found = await self._inspect()
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
            "rank": self._config.lora.rank,
        }

    async def _inspect(self) -> Inspection | None:
        if not self._groups:
            return None
        started = self._clock.now()
        try:
            async with asyncio.timeout(self._budget.left - LAST_MOMENT_S):
                found = await self._learner.inspect(self._groups)
        except (LearnerDied, TimeoutError):  # the next call to the learner tells of its death
            return None
        self._budget.expect("inspect", self._clock.now() - started)
        return found

    async def _respond(self, number: int) -> Group:
        rollout = self._config.rollout
        return await self._engine.generate(
            -1 - number,
            self._problems[number],
            None,
            Sampling(
                samples=1,
                max_tokens=min(rollout.max_response_tokens, TOKENS),
                temperature=rollout.temperature,
                top_p=1.0,
                seed=request_seed(0, "plasticity", number),
            ),
        )

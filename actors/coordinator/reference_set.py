"""The drift of a run's policy from its reference, on responses that stay the same throughout a run."""

import asyncio
import math

from actors.coordinator.budget import LAST_MOMENT_S
from actors.coordinator.context import RunContext
from actors.errors import LearnerDied
from actors.messages import Group, Inspection, Sample, Sampling
from actors.seeds import request_seed
from actors.storage.documents import EntropyChange, Plasticity

INSPECTED_PROBLEMS = 16
INSPECTED_TOKENS = 512
"""Number of responses in the reference set, and the most tokens of each. The learner needs a few seconds for them."""


class ReferenceSet:
    """Has the learner compare itself with its reference on the reference set, responses of the base model.

    The tokens stay the same throughout a run. All runs on the same problems sample them with the same seeds.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._engine = run.metered("eval")
        self._problems = (run.problems.heldout or run.problems.train)[:INSPECTED_PROBLEMS]
        self._groups: tuple[Group, ...] = ()

    async def sample(self) -> None:
        """Sample the reference set, or read it if the run has one."""
        if (responses := self._run.folder.reference_set()) is None:
            sampled = await asyncio.gather(*(self._respond(number) for number in range(len(self._problems))))
            responses = [list(group.samples[0].token_ids) for group in sampled]
            self._run.folder.write_reference_set(responses)
        self._groups = tuple(
            Group(-1 - number, problem, None, (Sample(tuple(ids), (), "", "stop"),))
            for number, (problem, ids) in enumerate(zip(self._problems, responses, strict=True))
        )

    async def inspect(self) -> Inspection | None:
        """Return the learner's measurements on the reference set; None if it crashes or would exceed the budget."""
        if not self._groups:
            return None
        started = self._run.clock.now()
        try:
            async with asyncio.timeout(self._run.budget.left - LAST_MOMENT_S):
                found = await self._run.learner.inspect(self._groups)
        except (LearnerDied, TimeoutError):  # the next call to the learner raises again
            return None
        self._run.budget.expect("inspect", self._run.clock.now() - started)
        return found

    async def measure(self, version: int) -> Plasticity | None:
        """Return `plasticity` of summary.json; None if the learner has no finite answer for this version."""
        found = await self.inspect()
        if found is None or found.version != version:
            return None
        before, after = found.base_entropy, found.entropy
        change = after / before - 1 if before else 0.0
        by_module = (*found.adapter_norm.values(), *found.effective_rank.values())
        if not all(map(math.isfinite, (before, after, change, found.kl_to_base, *by_module))):
            return None
        return Plasticity(
            probe_entropy=EntropyChange(before=before, after=after, change=change),
            kl_to_base=found.kl_to_base,
            adapter_norm=found.adapter_norm,
            effective_rank=found.effective_rank,
            rank=self._run.config.lora.rank,
        )

    async def _respond(self, number: int) -> Group:
        rollout = self._run.config.rollout
        tokens, seed = min(rollout.max_response_tokens, INSPECTED_TOKENS), request_seed(0, "plasticity", number)
        sampling = Sampling(1, tokens, rollout.temperature, top_p=1.0, seed=seed)
        return await self._engine.generate(-1 - number, self._problems[number], None, sampling)

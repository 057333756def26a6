"""The adapter check at every start of an engine: does it serve adapters as the learner computes them?"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from statistics import fmean

from microbudget_rl.actors.adapter_check.prompts import SAME, CheckPrompts, Responses, distance, logprobs_of
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import AdapterRef
from microbudget_rl.actors.protocols import FAITHFUL, Engine, Learner

CLEARLY = 0.8
"""Largest distance from the responses to a mistake that explains them, as a fraction of their distance to the truth."""

PROMPT_TOKENS = 16
"""Tokens that are kept of each prompt, since the learner scores each response under a dozen mistakes."""

LONG_PROMPT = 512
"""Tokens of one more prompt, if the context has room: some kernels of LoRA have failed only with long ones."""

FAR = 0.5
"""Largest distance from right responses to the truth, as a fraction of the mistakes' mean distance."""


Doubt = Callable[[str, str], object]
"""Gets the name of each engine that fails, and the fault."""


@dataclass
class CheckAtStart:
    """Has each starting engine serve synthetic adapters side by side, and checks responses by the learner's scores.

    doubt: None to halt the run.
    """

    engine: Engine
    learner: Learner
    prompts: CheckPrompts
    doubt: Doubt | None = None
    adapters: tuple[AdapterRef, ...] = ()
    _unchecked: list[tuple[str, list[Responses]]] = field(default_factory=list)

    async def begin(self) -> None:
        """Prompt the engines, now and whenever one starts again. The second call does nothing."""
        if not self.adapters:
            self.adapters = await self.learner.publish_synthetic()
            await self.engine.at_start(self._ask)

    async def check(self) -> None:
        """Compare all responses since the last call.

        Raises Halted if an engine serves an adapter unfaithfully, unless that is only doubted.
        """
        while self._unchecked:
            name, answers = self._unchecked[0]
            by_adapter, by_adapter_long = answers[: len(self.adapters)], answers[len(self.adapters) :]
            views = [await self.learner.explain(responses) for responses in by_adapter]
            # All adapters' tokens as one: an engine makes a mistake with each of them.
            joined = {mistake: tuple(chain.from_iterable(view[mistake] for view in views)) for mistake in views[0]}
            engine = [p for responses in by_adapter for p in logprobs_of(responses)]
            distances = {view: distance(engine, joined[view]) for view in joined}
            listed = "mean |Δ log p| " + ", ".join(f"{value:.3f} if {view}" for view, value in distances.items())
            print(f"adapter check at the start of {name}: {listed}", flush=True)
            mistake = find_mistake(engine, joined)
            for long in by_adapter_long:
                truth = (await self.learner.explain(long, False))[FAITHFUL]
                if not mistake and is_far(off := distance(logprobs_of(long), truth), joined):
                    mistake = f"a prompt of {len(long[0].problem.prompt_ids)} tokens had other weights ({off:.3f})"
            if mistake:
                fault = f"adapter check: at its start, {name} serves test adapters as if {mistake} ({listed})"
                if self.doubt is None:
                    raise Halted(f"{fault}; adapter_check.at_start=warn goes on, and marks the run's report")
                self.doubt(name, fault)
            self._unchecked.pop(0)

    async def _ask(self, name: str, engine: Engine) -> None:
        for adapter in self.adapters:
            await engine.load(adapter)
        kinds = self.prompts.shortened(PROMPT_TOKENS), self.prompts.lengthened(LONG_PROMPT)
        answers = await asyncio.gather(
            *(prompts.ask(engine, adapter) for prompts in kinds for adapter in self.adapters)
        )
        self._unchecked.append((name, [tuple(chain(*by_engine)) for by_engine in answers]))
        for adapter in self.adapters:
            await engine.retire(adapter)


def find_mistake(engine: list[float], views: dict[str, tuple[float, ...]]) -> str:
    """Return the mistake that explains an engine's log-probabilities, token by token; empty if it makes none.

    views: the learner's log-probabilities of the same tokens, as `Learner.explain` returns them.
    """
    mistakes = dict(views)
    truth = mistakes.pop(FAITHFUL)
    off = distance(engine, truth)
    if not isfinite(off):
        return "its log-probabilities, or the learner's, were not finite"
    if off < SAME:
        return ""
    nearest = min(mistakes, key=lambda name: distance(engine, mistakes[name]))
    if distance(engine, mistakes[nearest]) < CLEARLY * off:
        return nearest
    return f"it had other weights (mean |Δ log p| {off:.3f})" if is_far(off, views) else ""


def is_far(off: float, views: dict[str, tuple[float, ...]]) -> bool:
    """Return whether log-probabilities are as far from the truth as a mistake takes them. views: see `find_mistake`."""
    mean = fmean(distance(view, views[FAITHFUL]) for name, view in views.items() if name != FAITHFUL)
    return off > max(SAME, FAR * mean)

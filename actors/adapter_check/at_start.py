"""The adapter check at every start of an engine: does it serve adapters as the learner computes them?"""

import asyncio
from collections.abc import Callable
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


class CheckAtStart:
    """Has each starting engine serve synthetic adapters side by side, and checks responses by the learner's scores."""

    def __init__(self, engine: Engine, learner: Learner, prompts: CheckPrompts, doubt: Doubt | None = None) -> None:
        """doubt: None to halt the run."""
        self.adapters: tuple[AdapterRef, ...] = ()
        self.distances: dict[str, dict[str, float]] = {}
        self._doubt = doubt
        self._engine = engine
        self._learner = learner
        self._prompts = prompts.shortened(PROMPT_TOKENS), prompts.lengthened(LONG_PROMPT)
        self._unchecked: list[tuple[str, list[Responses]]] = []

    async def begin(self) -> None:
        """Prompt the engines, now and whenever one starts again. The second call does nothing."""
        if not self.adapters:
            self.adapters = await self._learner.publish_synthetic()
            await self._engine.at_start(self._ask)

    async def check(self) -> None:
        """Compare all responses since the last call, and keep each engine's distances to the truth and the mistakes.

        Raises Halted if an engine serves an adapter unfaithfully, unless that is only doubted.
        """
        while self._unchecked:
            name, answers = self._unchecked[0]
            by_adapter, by_adapter_long = answers[: len(self.adapters)], answers[len(self.adapters) :]
            views = [await self._learner.explain(responses) for responses in by_adapter]
            # All adapters' tokens as one: an engine makes a mistake with each of them.
            joined = {mistake: tuple(chain.from_iterable(view[mistake] for view in views)) for mistake in views[0]}
            engine = [p for responses in by_adapter for p in logprobs_of(responses)]
            far = self.distances[name] = {view: distance(engine, joined[view]) for view in joined}
            listed = "mean |Δ log p| " + ", ".join(f"{value:.3f} if {view}" for view, value in far.items())
            print(f"adapter check at the start of {name}: {listed}", flush=True)
            mistake = find_mistake(engine, joined)
            for long in by_adapter_long:
                truth = (await self._learner.explain(long, False))[FAITHFUL]
                if not mistake and is_far(off := distance(logprobs_of(long), truth), joined):
                    mistake = f"a prompt of {len(long[0].problem.prompt_ids)} tokens had other weights ({off:.3f})"
            if mistake:
                fault = f"adapter check: at its start, {name} serves test adapters as if {mistake} ({listed})"
                if self._doubt is None:
                    raise Halted(f"{fault}; adapter_check.at_start=warn goes on, and marks the run's report")
                self._doubt(name, fault)
            self._unchecked.pop(0)

    async def _ask(self, name: str, engine: Engine) -> None:
        for adapter in self.adapters:
            await engine.load(adapter)
        requests = [each.ask(engine, adapter) for each in self._prompts for adapter in self.adapters]
        self._unchecked.append((name, [tuple(chain(*each)) for each in await asyncio.gather(*requests)]))
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

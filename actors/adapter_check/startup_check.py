"""Checks at every start of an engine that it serves adapters as the learner understands them."""

import asyncio
from itertools import chain
from math import isfinite
from statistics import fmean

from actors.adapter_check.probes import Answers, Probes, logprobs_of
from actors.adapter_check.swap_check import distance
from actors.errors import Halted
from actors.messages import AdapterRef
from actors.protocols import FAITHFUL, Engine, Learner

CLEARLY = 0.8
"""A mistake is found where the distance of the answers to what the learner sees under it is below this share of their
distance to the truth."""

PROMPT_TOKENS = 16
"""Of a probe: the learner looks at each answer under a dozen mistakes, and has no use for the question."""

FAR = 0.5
"""Answers are wrong, though no mistake explains them, if they are farther from the truth than this share of what a
mistake moves the learner by on average."""


class StartupCheck:
    """Has every engine that starts serve synthetic adapters side by side, and compares its answers with the learner's
    view of them: loading, scale, all types of modules, which request gets which adapter.

    A policy that has hardly moved could show none of that.
    """

    def __init__(self, engine: Engine, learner: Learner, probes: Probes) -> None:
        self.adapters: tuple[AdapterRef, ...] = ()
        self._engine = engine
        self._learner = learner
        self._probes = probes.shortened(PROMPT_TOKENS)
        self._unchecked: list[tuple[str, list[Answers]]] = []

    async def begin(self) -> None:
        """Ask the engines, now and whenever one starts again; does nothing the second time."""
        if not self.adapters:
            self.adapters = await self._learner.publish_synthetic()
            await self._engine.at_start(self._ask)

    async def check(self) -> None:
        """Compare what was answered since the last time; raise Halted if an engine does not serve what it claims to."""
        while self._unchecked:
            name, by_adapter = self._unchecked[0]
            views = [await self._learner.explain(answers) for answers in by_adapter]
            # All adapters' tokens as one: an engine makes a mistake with each of them.
            joined = {mistake: tuple(chain.from_iterable(view[mistake] for view in views)) for mistake in views[0]}
            if mistake := find_mistake([p for answers in by_adapter for p in logprobs_of(answers)], joined):
                raise Halted(f"canary: {name} has started, and answers under synthetic adapters as if {mistake}")
            self._unchecked.pop(0)

    async def _ask(self, name: str, engine: Engine) -> None:
        for adapter in self.adapters:
            await engine.load(adapter)
        by_adapter = await asyncio.gather(*(self._probes.ask(engine, adapter) for adapter in self.adapters))
        self._unchecked.append((name, [tuple(chain.from_iterable(answers)) for answers in by_adapter]))
        for adapter in self.adapters:
            await engine.retire(adapter)


def find_mistake(engine: list[float], views: dict[str, tuple[float, ...]]) -> str:
    """Return the mistake that explains an engine's log-probabilities, token by token; empty if it makes none.

    views: the learner's log-probabilities of the same tokens, as `Learner.explain` returns them.
    """
    truth = views[FAITHFUL]
    off = distance(engine, truth)
    if not isfinite(off):
        return "its probabilities, or the learner's, were no numbers"
    mistakes = {name: view for name, view in views.items() if name != FAITHFUL}
    nearest = min(mistakes, key=lambda name: distance(engine, mistakes[name]))
    if distance(engine, mistakes[nearest]) < CLEARLY * off:
        return nearest
    far = off > FAR * fmean(distance(view, truth) for view in mistakes.values())
    return f"its weights were others (mean |Δ log p| {off:.3f})" if far else ""

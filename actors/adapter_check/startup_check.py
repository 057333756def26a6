"""Whether an engine that has just started serves any adapter as the learner understands it."""

import asyncio
from itertools import chain
from math import isfinite
from statistics import fmean

from actors.adapter_check.canary import distance
from actors.adapter_check.probes import Probes
from actors.errors import Halted
from actors.messages import AdapterRef, Group
from actors.protocols import FAITHFUL, Engine, Learner

CLEARLY = 0.8
"""A mistake is found where the answers are so much nearer to what the learner sees under it than to the truth."""

PROMPT_TOKENS = 16
"""Of a probe: the learner looks at each answer under a dozen mistakes, and has no use for the question."""

FAR = 0.5
"""Of the way that a mistake takes the learner, on the average over the mistakes: answers farther from the truth than
that are wrong, though no mistake explains them."""


class StartupCheck:
    """Every engine serves synthetic adapters side by side at its start, before anything else, and its answers are
    compared with the learner's view of them: loading, scale, all types of modules, which request gets which adapter.

    A policy that has hardly moved could show none of that.
    """

    def __init__(self, engine: Engine, learner: Learner, probes: Probes) -> None:
        self.adapters: tuple[AdapterRef, ...] = ()
        self._engine = engine
        self._learner = learner
        self._probes = probes.shortened(PROMPT_TOKENS)
        self._given: list[tuple[str, list[tuple[Group, ...]]]] = []

    async def begin(self) -> None:
        """Ask the engines, now and whenever one starts again; nothing if that was done."""
        if not self.adapters:
            self.adapters = await self._learner.publish_synthetic()
            await self._engine.at_start(self._ask)

    async def judge(self) -> None:
        """Look at what was answered since the last time; Halted if an engine does not serve what it claims to."""
        while self._given:
            name, by_adapter = self._given[0]
            views = [await self._learner.explain(answers) for answers in by_adapter]
            answers = chain.from_iterable(by_adapter)
            if mistake := find_mistake([p for g in answers for s in g.samples for p in s.logprobs], joined(views)):
                raise Halted(f"canary: {name} has started, and answers under synthetic adapters as if {mistake}")
            self._given.pop(0)

    async def _ask(self, name: str, engine: Engine) -> None:
        for adapter in self.adapters:
            await engine.load(adapter)
        by_adapter = await asyncio.gather(*(self._probes.ask(engine, adapter) for adapter in self.adapters))
        self._given.append((name, [tuple(chain.from_iterable(answers)) for answers in by_adapter]))
        for adapter in self.adapters:
            await engine.retire(adapter)


def joined(views: list[dict[str, tuple[float, ...]]]) -> dict[str, tuple[float, ...]]:
    """Several adapters' views as one: a mistake is made with all of them."""
    return {name: tuple(chain.from_iterable(view[name] for view in views)) for name in views[0]}


def find_mistake(engine: list[float], views: dict[str, tuple[float, ...]]) -> str:
    """Which mistake explains an engine's log-probabilities, token by token; empty if it makes none.

    views: the learner's log-probabilities of the same tokens, as `Learner.explain` has them.
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

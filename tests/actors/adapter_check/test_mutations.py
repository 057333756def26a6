"""Whole runs over fakes with engines that do not serve what they claim to: each halts before a step on false samples.

A policy is a sum of contributions, one of each type of module, that grow with its version.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import AdapterRef, Group, Sample, Scores
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.actors.storage.run_record import RunRecord
from tests.actors.virtual_run import Run

MODULES = ("q_proj", "v_proj", "down_proj")
PROBLEMS, TOKENS = 4, 12
STEP = 0.05
NOISE = 0.03
FAR = 20


@dataclass(frozen=True)
class Served:
    """An engine's weights: which version of whose adapter, on which modules, how strongly."""

    version: float
    modules: tuple[str, ...] = MODULES
    scale: float = 1.0
    owner: str = "ours"


Fault = Callable[[int, Served], Served]
"""From the number of an engine and what it is asked for to what it serves."""


def asked_for(adapter: AdapterRef) -> Served:
    """Synthetic adapters are far from the base model and from each other."""
    return Served(FAR, owner=adapter.name) if adapter.synthetic else Served(adapter.version)


def logprob(served: Served, problem: int, token: int) -> float:
    base = -2.0 + random.Random(f"base/{problem}/{token}").uniform(-1.0, 1.0)
    return base + served.scale * STEP * served.version * sum(
        random.Random(f"{served.owner}/{module}/{problem}/{token}").gauss(0.0, 1.0) for module in served.modules
    )


def disagreement(served: Served, version: int) -> float:
    return fmean(
        abs(logprob(served, problem, token) - logprob(Served(version), problem, token))
        for problem in range(PROBLEMS)
        for token in range(TOKENS)
    )


class Faulty(Run):
    """A run whose engines have a fault."""

    def __init__(self, path: Path, fault: Fault, engines: int = 1, noise: float = NOISE, step: float = 1.0) -> None:
        settings = {"adapter_check.problems": PROBLEMS, "budget.updates": 100, "eval.problems": 0}
        super().__init__(path, settings, seconds=10_000.0)
        rng = random.Random(0)

        async def generate_on_each(request: Any) -> tuple[Group, ...]:
            await self.engine.travel()
            index, adapter = request.index, request.adapter

            def respond(engine: int) -> Sample:
                served = fault(engine, asked_for(adapter))
                if not adapter.synthetic:
                    served = replace(served, version=served.version * step)
                logprobs = (logprob(served, -1 - index, token) + rng.gauss(0.0, noise) for token in range(TOKENS))
                return Sample((7,) * TOKENS, tuple(logprobs), "7", "length")

            return tuple(Group(index, request.problem, adapter, (respond(engine),)) for engine in range(engines))

        async def score(groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
            def view(served: Served, number: int) -> tuple[float, ...]:
                return tuple(logprob(served, number, token) for token in range(TOKENS))

            await self.learner.travel()
            self.learner.scored.append((self.learner.version, groups[0].adapter))
            own = Served(self.learner.version * step)
            return tuple((Scores(view(own, -1 - g.index), view(Served(0), -1 - g.index)),) for g in groups)

        async def explain(groups: tuple[Group, ...], mistakes: bool = True) -> dict[str, tuple[float, ...]]:
            await self.learner.travel()
            adapter = groups[0].adapter
            assert adapter
            own = asked_for(adapter)
            views = {FAITHFUL: own} | {name: mistake(0, own) for name, mistake in AT_START.items()}
            return {
                name: tuple(logprob(served, -1 - group.index, token) for group in groups for token in range(TOKENS))
                for name, served in views.items()
                if name != "another"
            }

        self.engine.generate_on_each = generate_on_each  # type: ignore[method-assign]
        self.learner.score = score  # type: ignore[method-assign]
        self.learner.explain = explain  # type: ignore[method-assign]


AT_START: dict[str, Fault] = {
    "not loaded": lambda _, asked: replace(asked, version=0),
    "alpha doubled": lambda _, asked: replace(asked, scale=2.0),
    "alpha halved": lambda _, asked: replace(asked, scale=0.5),
    "no q_proj": lambda _, asked: replace(asked, modules=MODULES[1:]),
    "no v_proj": lambda _, asked: replace(asked, modules=MODULES[::2]),
    "crossed": lambda _, asked: replace(asked, owner=f"synthetic-{3 - int(asked.owner[-1])}"),
    "another": lambda _, asked: replace(asked, owner="theirs"),
}
AFTER_SYNC: dict[str, tuple[Fault, str]] = {
    "not loaded": (AT_START["not loaded"], "the adapter is not applied"),
    "alpha doubled": (AT_START["alpha doubled"], "2.0 times the learner's"),
    "alpha halved": (AT_START["alpha halved"], "of the learner's change arrives"),
    "no q_proj": (AT_START["no q_proj"], "of the learner's change arrives"),
    "another": (AT_START["another"], "the weights of another adapter"),
    "stuck": (lambda _, asked: replace(asked, version=min(asked.version, 6)), "they are those of version"),
    "late": (lambda _, asked: replace(asked, version=asked.version / 2), "of the learner's change arrives"),
}


def halt_of(run: Run) -> str:
    cause = run.fail()
    assert isinstance(cause, Halted)
    return str(cause)


def once_started(fault: Fault) -> Fault:
    """A fault that synthetic adapters do not show."""
    return lambda engine, asked: fault(engine, asked) if asked.owner == "ours" else asked


@pytest.mark.parametrize("name", AT_START)
def test_fault_at_the_start_halts_the_run_before_anything_is_sampled(tmp_path: Path, name: str):
    run = Faulty(tmp_path, AT_START[name])
    expected = name if name != "another" else "it had other weights"
    cause = halt_of(run)
    assert "at its start, rollout-0" in cause
    assert expected in cause
    assert run.engine.served == []


def test_fault_at_the_start_may_be_a_warning_and_the_check_after_a_sync_halts_all_the_same(tmp_path: Path):
    fault = AT_START["not loaded"]
    run = Faulty(tmp_path, fault)
    run.change({"adapter_check.at_start": "warn"})
    assert "the adapter is not applied" in halt_of(run)
    assert run.learner.version > 1
    [event] = RunRecord(tmp_path).events()
    assert (event.kind, event.update, event.event.split()[0]) == (EventKind.CHECK_FAILED, 0, "rollout-0")
    assert event.detail.count(" if ") == len(AT_START) + 1  # the distances to the truth and to all but "another"


@pytest.mark.parametrize("name", AFTER_SYNC)
def test_fault_halts_the_run_as_soon_as_it_shows(tmp_path: Path, name: str):
    """Before the first step from the version at which the difference leaves the band, give or take the noise."""
    fault, diagnosis = AFTER_SYNC[name]
    run = Faulty(tmp_path, once_started(fault), noise=0.0 if name == "stuck" else NOISE)
    visible = next(v for v in range(100) if disagreement(fault(0, Served(v)), v) > run.config.adapter_check.noise_floor)
    assert diagnosis in halt_of(run)
    assert abs(run.learner.version - visible) <= 1
    assert run.learner.scored[-1][0] == run.learner.version


def test_one_faulty_engine_among_several_is_named(tmp_path: Path):
    fault = once_started(lambda engine, asked: replace(asked, version=0) if engine == 1 else asked)
    cause = halt_of(Faulty(tmp_path, fault, engines=3))
    assert "of rollout-1, unlike the others, differ" in cause
    assert "the adapter is not applied" in cause


@pytest.mark.parametrize("first", [-2, 0, 5])
def test_engine_whose_probabilities_are_no_numbers_halts_the_run(tmp_path: Path, first: int):
    """From its start on, at the first comparison, which measures the noise, or later; beside a sound engine."""

    def break_down(engine: int, asked: Served) -> Served:
        version = -2 if asked.owner != "ours" else asked.version
        return replace(asked, scale=nan) if engine == 1 and version >= first else asked

    run = Faulty(tmp_path, break_down, engines=2)
    cause = halt_of(run)
    assert "not finite" in cause
    assert first < 0 or "of rollout-1, unlike the others, are" in cause
    assert run.learner.version <= max(first, 0) + 1


def test_learner_whose_probabilities_are_no_numbers_halts_the_run(tmp_path: Path):
    run = Faulty(tmp_path, lambda _, asked: asked)

    async def score(groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        await run.learner.travel()
        return tuple((Scores((nan,) * TOKENS, (-1.0,) * TOKENS),) for _ in groups)

    run.learner.score = score  # type: ignore[method-assign]
    assert "of the learner are not finite for version 0" in halt_of(run)


@pytest.mark.long
@pytest.mark.parametrize("step", [1.0, 0.001])
def test_a_hundred_sound_weight_syncs_never_halt(tmp_path: Path, step: float):
    run = Faulty(tmp_path, lambda _, asked: asked, engines=2, step=step)
    assert run.go().status == "completed"
    assert run.learner.version == 100
    decided = [row["adapter_check/decided"] for row in run.rows]
    assert decided[-1] == (1.0 if step == 1.0 else 0.0)

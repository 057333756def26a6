"""Engines that do not serve what they claim to, in whole runs over fakes: each halts, and no step is taken on its word.

A policy is a sum of contributions, one of each type of module, that grow with its version.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from actors.messages import Group, Sample, Scores
from actors.outcome import Halted, root_cause
from tests.actors.test_coordinator import Run

MODULES = ("q_proj", "v_proj", "down_proj")
PROBLEMS, TOKENS = 4, 12
STEP = 0.05
NOISE = 0.03


@dataclass(frozen=True)
class Served:
    """What an engine computes: which version of whose adapter, on which modules, how strongly."""

    version: float
    modules: tuple[str, ...] = MODULES
    scale: float = 1.0
    owner: str = "ours"


Fault = Callable[[int, int], Served]
"""What engine number … serves when asked for version …"""


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
    """A run whose engines obey a fault."""

    def __init__(self, path: Path, fault: Fault, engines: int = 1, noise: float = NOISE, step: float = 1.0) -> None:
        super().__init__(path, seconds=10_000.0)
        self.config.canary.problems = PROBLEMS
        self.config.budget.updates = 100
        self.config.eval.problems = 0
        rng = random.Random(0)

        async def probe(index: int, problem: Any, adapter: Any, sampling: Any) -> tuple[Group, ...]:
            number = -1 - index

            def answer(engine: int) -> Sample:
                served = fault(engine, adapter.version)
                served = replace(served, version=served.version * step)
                logprobs = (logprob(served, number, token) + rng.gauss(0.0, noise) for token in range(TOKENS))
                return Sample((7,) * TOKENS, tuple(logprobs), "7", "length")

            return tuple(Group(index, problem, adapter, (answer(engine),)) for engine in range(engines))

        async def score(groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
            def view(version: float, number: int) -> tuple[float, ...]:
                return tuple(logprob(Served(version), number, token) for token in range(TOKENS))

            self.learner.scored.append((self.learner.version, groups[0].adapter))
            version = self.learner.version * step
            return tuple((Scores(view(version, -1 - g.index), view(0, -1 - g.index)),) for g in groups)

        self.engine.probe = probe  # type: ignore[method-assign]
        self.learner.score = score  # type: ignore[method-assign]


FAULTS: dict[str, tuple[Fault, str]] = {
    "not loaded": (lambda _, version: Served(0), "the adapter is not applied"),
    "stuck": (lambda _, version: Served(min(version, 6)), "word for word those of policy-v"),
    "late": (lambda _, version: Served(version / 2), "% of the learner's change arrives: an older version"),
    "alpha doubled": (lambda _, version: Served(version, scale=2.0), "2.0 times the learner's: too large a scale"),
    "alpha halved": (lambda _, version: Served(version, scale=0.5), "of the learner's change arrives"),
    "no q_proj": (lambda _, version: Served(version, MODULES[1:]), "a type of module without its adapter"),
    "another": (lambda _, version: Served(version, owner="theirs"), "the weights of another adapter"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_halts_the_run_as_soon_as_it_shows(tmp_path: Path, name: str) -> None:
    """Before the first step from the version at which the difference leaves the band, give or take the noise."""
    fault, diagnosis = FAULTS[name]
    run = Faulty(tmp_path, fault, noise=0.0 if name == "stuck" else NOISE)
    visible = next(v for v in range(100) if disagreement(fault(0, v), v) > run.config.canary.noise_floor)
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    cause = root_cause(caught.value)
    assert isinstance(cause, Halted)
    assert diagnosis in str(cause)
    assert abs(run.learner.version - visible) <= 1
    assert run.learner.scored[-1][0] == run.learner.version


def test_one_faulty_engine_among_several_is_named(tmp_path: Path) -> None:
    run = Faulty(tmp_path, lambda engine, version: Served(0 if engine == 1 else version), engines=3)
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    cause = str(root_cause(caught.value))
    assert "of rollout-1, unlike the others, differ" in cause
    assert "the adapter is not applied" in cause


@pytest.mark.parametrize("step", [1.0, 0.001])
def test_a_hundred_healthy_swaps_never_halt(tmp_path: Path, step: float) -> None:
    run = Faulty(tmp_path, lambda _, version: Served(version), engines=2, step=step)
    assert run.go().status == "completed"
    assert run.learner.version == 100
    decided = [row["canary/decided"] for row in run.rows]
    assert decided[-1] == (1.0 if step == 1.0 else 0.0)

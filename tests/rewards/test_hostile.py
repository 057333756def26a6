"""Answers meant to hang, crash, swell or fool the grader, against a real pool."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.messages import Problem, Sample, Status
from conf.schema import CustomRewardConfig, RewardConfig
from rewards.killable_worker import Hung, Worker
from rewards.pool import VerifierPool
from rewards.reward import RewardFunction
from tests.rewards.hostile import HOSTILE

MIB = 2**20


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(RewardFunction(RewardConfig(deadline_s=1.0)), workers=2) as pool:
        yield pool


def memory() -> int:
    """Bytes of this process and its children."""
    here = psutil.Process()
    return sum(process.memory_info().rss for process in (here, *here.children(recursive=True)))


def test_every_hostile_answer_gets_a_status_and_none_is_right(pool: VerifierPool) -> None:
    warm = [("x^2+2x+1", rf"\boxed{{x^2 + 2x + 1 + {n} - {n}}}") for n in range(20)]
    assert [verdict.status for verdict in pool.verify_all(warm)] == [Status.CORRECT] * 20
    before = memory()
    verdicts = dict(zip(HOSTILE, pool.verify_all(HOSTILE.values()), strict=True))
    assert not [name for name, verdict in verdicts.items() if verdict.status is Status.CORRECT]
    assert {verdict.status for verdict in verdicts.values()} >= {Status.WRONG, Status.UNPARSABLE, Status.TIMEOUT}
    assert not [name for name, verdict in verdicts.items() if verdict.status is Status.CRASH]
    normal = [("x^2+2x+1", rf"\boxed{{(x+1)^2 + {n} - {n}}}") for n in range(20)]
    assert [verdict.status for verdict in pool.verify_all(normal)] == [Status.CORRECT] * 20
    assert memory() - before < 500 * MIB
    assert pool.health["hung"] <= len(HOSTILE) // 20  # only algebra that looks harmless may run until the deadline


@pytest.mark.parametrize(("busy", "calls"), [(True, 1), (False, 3)])
def test_a_call_that_hung_while_computing_is_not_repeated(
    busy: bool, calls: int, pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was starved of a core is, since the machine was at fault."""

    def hang(*_: object) -> None:
        raise Hung(busy)

    monkeypatch.setattr(Worker, "run", hang)
    before = pool.health["hung"]
    statuses = [pool.verify(rf"\sqrt{{x}} + {busy:d}", r"\boxed{x}").status for _ in range(3)]
    assert statuses == [Status.TIMEOUT] * 3
    assert pool.health["hung"] - before == calls


LETTERS = st.text(alphabet="0123456789xyn+-*/^{}()[]!\\,. ", max_size=30)
PIECES = st.sampled_from(
    [r"\frac", r"\sqrt", "{", "}", "(", ")", "^", "9", "x", "!", r"\sum_{n=1}^{9}", r"\int", r"\sin", "+", ",", "="]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(answer=st.one_of(LETTERS, st.lists(PIECES, max_size=25).map("".join)))
def test_any_answer_gets_a_status(pool: VerifierPool, answer: str) -> None:
    assert pool.verify("x^2+2x+1", rf"\boxed{{{answer}}}").status in Status


FUNCTIONS = """
import os, time

def length(prompt, response, gold):
    return len(response)

def hang(prompt, response, gold):
    while True:
        pass

def leave(prompt, response, gold):
    os._exit(0)

def swell(prompt, response, gold):
    return len(bytearray(2**34))
"""


@pytest.mark.parametrize(
    ("function", "status", "value"),
    [
        ("length", Status.CORRECT, 9.0),
        ("hang", Status.TIMEOUT, 0.0),
        ("leave", Status.CRASH, 0.0),
        ("swell", Status.CRASH, 0.0),
    ],
)
def test_a_users_function_is_isolated_too(function: str, status: Status, value: float, tmp_path: Path) -> None:
    (tmp_path / "hostile_rewards.py").write_text(FUNCTIONS)
    before = memory()
    deadline_s = 0.5 if function == "hang" else 30.0
    config = RewardConfig(custom=[CustomRewardConfig(f"hostile_rewards:{function}")], deadline_s=deadline_s)
    with VerifierPool(RewardFunction(config), workers=1) as pool:
        pairs = [(Problem("id", "2 + 2 =", (1,), "4"), Sample((1,), (0.0,), r"\boxed{4}", "stop"))] * 2
        rewards = list(pool.rewards_all(pairs))
    assert [reward.status for reward in rewards] == [status] * 2
    assert [reward.verdict.status for reward in rewards] == [Status.CORRECT] * 2  # held-out figures go by it
    assert [reward.parts[function] for reward in rewards] == [value] * 2
    assert [reward.masked for reward in rewards] == [status is not Status.CORRECT] * 2
    assert memory() - before < 500 * MIB

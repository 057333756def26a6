"""Adversarial answers, against a real pool."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.messages import Status
from microbudget_rl.conf.schema import RewardConfig
from microbudget_rl.rewards.killable_worker import Hung, KillableWorker
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.rewards.hostile import HOSTILE

pytestmark = pytest.mark.long

MIB = 2**20


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(RewardFunction(RewardConfig(deadline_s=1.0)), workers=2) as pool:
        yield pool


def memory() -> int:
    """Return the bytes of this process and its children."""
    here = psutil.Process()
    return sum(process.memory_info().rss for process in (here, *here.children(recursive=True)))


def statuses(pool: VerifierPool, pairs: list[tuple[str, str]]) -> list[Status]:
    golds, responses = zip(*pairs, strict=True)
    with ThreadPoolExecutor(2) as threads:
        return [verdict.status for verdict in threads.map(pool.verify, golds, responses)]


def test_every_hostile_answer_gets_a_status_and_none_is_right(pool: VerifierPool):
    right = [
        [("x^2+2x+1", rf"\boxed{{{form} + {n} - {n}}}") for n in range(20)] for form in ("x^2 + 2x + 1", "(x+1)^2")
    ]
    assert statuses(pool, right[0]) == [Status.CORRECT] * 20
    before = memory()
    found = dict(zip(HOSTILE, statuses(pool, list(HOSTILE.values())), strict=True))
    assert {name for name, status in found.items() if status in (Status.CORRECT, Status.CRASH)} == set()
    assert set(found.values()) == {Status.WRONG, Status.UNPARSABLE, Status.TIMEOUT}
    assert statuses(pool, right[1]) == [Status.CORRECT] * 20
    assert memory() - before < 500 * MIB
    hung = sum(status is Status.TIMEOUT for status in found.values())
    assert hung <= len(HOSTILE) // 20  # only algebra that looks harmless may run until the deadline


@pytest.mark.parametrize(("busy", "calls"), [(True, 1), (False, 3)])
def test_only_calls_that_lacked_a_core_are_repeated(
    busy: bool, calls: int, pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
):
    called = []

    def hang(*_: object, **__: object) -> None:
        called.append(1)
        raise Hung(busy)

    monkeypatch.setattr(KillableWorker, "run", hang)
    found = [pool.verify(rf"\sqrt{{x}} + {busy:d}", r"\boxed{x}").status for _ in range(3)]
    assert (found, len(called)) == ([Status.TIMEOUT] * 3, calls)


LETTERS = st.text(alphabet="0123456789xyn+-*/^{}()[]!\\,. ", max_size=30)
PIECES = st.sampled_from(
    [r"\frac", r"\sqrt", "{", "}", "(", ")", "^", "9", "x", "!", r"\sum_{n=1}^{9}", r"\int", r"\sin", "+", ",", "="]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(answer=st.one_of(LETTERS, st.lists(PIECES, max_size=25).map("".join)))
def test_any_answer_gets_a_status(pool: VerifierPool, answer: str):
    assert pool.verify("x^2+2x+1", rf"\boxed{{{answer}}}").status in Status

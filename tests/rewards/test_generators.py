"""Junk earns nothing in any usable set of reasoning_gym, and the sets that run the model's answer are refused."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import reasoning_gym
import yaml
from reasoning_gym.factory import DATASETS

from microbudget_rl.actors.messages import Status
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import DataConfig, RewardConfig
from microbudget_rl.rewards.generators import EXACT, REFUSED, RUN_THE_ANSWER, SCORED, grader_of, same_text
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.problems.sources import read
from microbudget_rl.rewards.verify.text.extraction import extract
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.rewards.corpus import CASES, STATUSES

pytestmark = pytest.mark.long

JUNK = (
    "0", "1", "-1", "2", "42", "00", "1.0", "1e308", "1e400", "-1e308", "nan", "NaN", "inf", "-Infinity", "nan+nanj",
    "nan + nani", "1j", "i", "True", "False", "yes", "No", "None", "null", "N/A", "junk", "a", "x", "?", ".", "-", ",",
    "/", "%", "[]", "{}", "()", "[[]]", "[0]", "['']", "[NaN]", '{"a": 1}', '""', "''", "é", "１", "½", "∞", "🙂",
    "\x00", "impossible", "correct", "0 0", "0,0", "0/0", "1/0", "[1, 2, 3]", "9" * 400, "9" * 5000, "a" * 9999,
    "[" * 999, "{" * 999, "0 " * 500, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "R", "RDLU" * 50, "A+1 " * 50, "00:00",
    "1e999999999", "F999999999", "A+999999999",
)  # fmt: skip

FEW = ("chain_sum", "game_of_life", "game_of_life_halting", "number_sorting")
"""Sets whose own scoring pays for junk or fails on it, and the quickstart's."""


def derived(gold: str, question: str) -> Iterator[str]:
    """Yield junk of the shape of an answer: parts of it, its numbers and words replaced, and the question."""
    yield from (gold[:1], gold[: len(gold) // 2], gold + "7 junk", f"{gold}, {gold} or 7", "not " + gold)
    yield from (re.sub(r"\d+(\.\d+)?", number, gold) for number in ("nan", "NaN", "0", "1e308", "Infinity"))
    yield from (re.sub(r"[A-Za-z]+", word, gold) for word in ("a", "nan"))
    yield from (question, question.split()[-1], *question.splitlines()[:20])


def right(gold: str, answer: str) -> bool:
    """Whether junk happens to be the answer."""
    one, other = (" ".join(text.replace("'", "").replace('"', "").lower().split()) for text in (gold, answer))
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=1e-3)
    except ValueError:
        return one == other or bool(re.fullmatch(rf"{re.escape(one)}(, {re.escape(one)} or 7)?", other))


def rewarded(pool: VerifierPool, name: str, problems: int) -> list[tuple[str, str, str]]:
    """Return junk that earned a reward or crashed the verifier, each with its gold answer."""
    found = []
    for entry in reasoning_gym.create_dataset(name, seed=5, size=problems):
        gold, grader = str(entry["answer"] or ""), grader_of(name, {}, entry)
        for junk in (*JUNK, *derived(gold, entry["question"])):
            status = pool.verify(gold, rf"\boxed{{{junk}}}", grader).status
            if status not in (Status.WRONG, Status.UNPARSABLE) and not right(gold.strip("$"), junk):
                found.append((status.value, junk[:60], gold[:60]))
        boxed = rf"\boxed{{{gold}}}"
        assert not gold or extract(boxed) != gold or pool.verify(gold, boxed, grader).status is Status.CORRECT
    return found


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(RewardFunction(RewardConfig()), workers=1) as pool:
        yield pool


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(DATASETS.keys() - {*REFUSED, *FEW})]


@pytest.mark.parametrize("name", [*FEW, *OTHERS])
def test_junk_earns_nothing_in_any_set(pool: VerifierPool, name: str):
    assert rewarded(pool, name, problems=3) == []


def test_the_generators_that_run_answers_are_refused():
    done = subprocess.run(
        [sys.executable, "-m", "tests.rewards.attack", "generators"], stdout=subprocess.PIPE, check=True
    )
    attacked = json.loads(done.stdout.splitlines()[-1])
    assert attacked.keys() == DATASETS.keys() >= {*REFUSED, *SCORED}
    assert {name for name, found in attacked.items() if found["evaluates"]} <= RUN_THE_ANSWER
    assert {name for name, found in attacked.items() if found["touches"]} == RUN_THE_ANSWER


@pytest.mark.parametrize("name", [*sorted(REFUSED), "count_down"])
def test_generators_without_safe_scoring_are_neither_used_nor_suggested(name: str):
    with pytest.raises(BadInput, match=rf"data\.eval_source: .*'{name}'") as refused:
        read("data.eval_source", f"reasoning_gym:{name}", DataConfig(), 0)
    assert not [other for other in REFUSED if other != name and other in str(refused.value).partition(name)[2]]


@pytest.mark.parametrize("page", ["README.md", "docs/start/your-problems.md"])
def test_pages_count_the_usable_generators(page: str):
    said = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    assert f"{len(DATASETS.keys() - REFUSED.keys())} generators" in said


ANSWERS = yaml.safe_load((CASES / "generators.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "gold", "answer", "status"), ANSWERS)
def test_answers_are_compared_with_the_entrys_own(pool: VerifierPool, name: str, gold: str, answer: str, status: str):
    assert pool.verify(gold, rf"\boxed{{{answer}}}", grader_of(name, {}, {})).status is STATUSES[status]


def test_the_library_accepts_another_solution(pool: VerifierPool):
    [entry] = reasoning_gym.create_dataset("graph_color", seed=5, size=1)
    colours = json.dumps({str(vertex): colour for vertex, colour in entry["metadata"]["possible_answer"].items()})
    grader, broken = grader_of("graph_color", {}, entry), grader_of("jugs", {"no_such_field": 1}, {})
    assert pool.verify("", rf"\boxed{{{colours}}}", grader).status is Status.CORRECT
    assert pool.verify("", r"\boxed{1}", broken).status is Status.CRASH


def test_an_entry_without_an_answer_needs_the_library(pool: VerifierPool):
    library = grader_of("graph_color", {}, {})
    golds = [("", EXACT), ("", library), ("1 " * 999, EXACT), ("{'s': '}['}", EXACT)]
    assert pool.check_golds(golds) == [False, True, False, False]  # the last two cannot be given in a box
    assert not same_text("ab", "a b")

"""No junk is paid for, in any of reasoning_gym's sets that can be used."""

import json
import math
import re
from collections.abc import Iterator

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from actors.messages import Status
from conf.schema import RewardConfig
from rewards.generators import EXACT, REFUSED, SCORED, VALUES, grader_of, same_text, same_values
from rewards.pool import VerifierPool
from rewards.reward import RewardFunction
from rewards.verify import extract

JUNK = (
    "0", "1", "-1", "2", "42", "00", "1.0", "1e308", "1e400", "-1e308", "nan", "NaN", "inf", "-Infinity", "nan+nanj",
    "nan + nani", "1j", "i", "True", "False", "yes", "No", "None", "null", "N/A", "junk", "a", "x", "?", ".", "-", ",",
    "/", "%", "[]", "{}", "()", "[[]]", "[0]", "['']", "[NaN]", '{"a": 1}', '""', "''", "é", "１", "½", "∞", "🙂",
    "\x00", "impossible", "correct", "0 0", "0,0", "0/0", "1/0", "[1, 2, 3]", "9" * 400, "9" * 5000, "a" * 9999,
    "[" * 999, "{" * 999, "0 " * 500, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "R", "RDLU" * 50, "A+1 " * 50, "00:00",
    "1e999999999", "F999999999", "A+999999999",
)  # fmt: skip

FEW = ("chain_sum", "coin_flip", "complex_arithmetic", "game_of_life", "game_of_life_halting", "number_sorting")
"""Sets whose scorers pay for junk or fail on it, and the quickstart's."""


def derived(gold: str, question: str) -> Iterator[str]:
    """Junk of the shape of an answer: parts of it, its numbers and words replaced, and the question."""
    yield from (gold[:1], gold[: len(gold) // 2], gold + "0 junk", f"{gold}, {gold} or 7", "not " + gold)
    yield from (re.sub(r"\d+(\.\d+)?", number, gold) for number in ("nan", "NaN", "0", "1e308", "Infinity"))
    yield from (re.sub(r"[A-Za-z]+", word, gold) for word in ("a", "nan"))
    yield from (question, question.split()[-1], *question.splitlines()[:20])


def right(gold: str, answer: str) -> bool:
    """Whether what was meant as junk is the answer, after all."""
    one, other = (" ".join(text.replace("'", "").replace('"', "").lower().split()) for text in (gold, answer))
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=1e-3)
    except ValueError:
        return one == other or bool(re.fullmatch(rf"{re.escape(one)}(, {re.escape(one)} or 7)?", other))


def paid(pool: VerifierPool, name: str, problems: int) -> list[tuple[str, str, str]]:
    """Return junk that was paid for, or that could not be judged, each with its gold answer."""
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


@pytest.mark.parametrize("name", FEW)
def test_junk_is_not_paid_for(pool: VerifierPool, name: str) -> None:
    assert paid(pool, name, problems=2) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DATASETS.keys() - REFUSED.keys()))
def test_no_set_pays_for_junk(pool: VerifierPool, name: str) -> None:
    assert paid(pool, name, problems=3) == []


def test_the_tables_name_sets_that_exist() -> None:
    names = [*REFUSED, *VALUES, *SCORED]
    assert len(names) == len(set(names))
    assert set(names) <= DATASETS.keys()


@pytest.mark.parametrize(
    ("name", "gold", "answer", "status"),
    [
        ("dice", "1/2", r"\frac{1}{2}", Status.CORRECT),
        ("leg_counting", "12", "12 legs", Status.CORRECT),
        ("gsm_symbolic", "20", "-20", Status.WRONG),
        ("coin_flip", "0.3125", r"\frac{5}{16}", Status.CORRECT),
        ("coin_flip", "0.0009155273438", "15/16384", Status.CORRECT),
        ("coin_flip", "3.051757812e-05", "0", Status.WRONG),
        ("complex_arithmetic", "-15.0 + 3.0i", "3i-15", Status.WRONG),
        ("complex_arithmetic", "-15.0 + 3.0i", "-15+3i", Status.CORRECT),
        ("complex_arithmetic", "48.0 + 36.0i", "(6+6i)*(7-i)", Status.WRONG),
        ("polynomial_equations", "-3.625, 0.0", "0, -3.625", Status.CORRECT),
        ("polynomial_equations", "", "none", Status.WRONG),
        ("number_sorting", "['-87.0', '19.0']", "[-87.0, 19.0]", Status.CORRECT),
        ("number_sorting", "['-87.0', '19.0']", "['-86.5', '19.0']", Status.WRONG),
        ("game_of_life_halting", "False", r"\text{false}", Status.CORRECT),
        ("manipulate_matrix", "1 2\n3 4", " 1  2 \n\n3 4", Status.CORRECT),
        ("manipulate_matrix", "1 2\n3 4", "1 2 3 4", Status.WRONG),
        ("codeio", '{"a": [1, 2]}', "{'a':[1,2]}", Status.CORRECT),
    ],
)
def test_answers_are_compared_with_the_sets_own(
    pool: VerifierPool, name: str, gold: str, answer: str, status: Status
) -> None:
    assert pool.verify(gold, rf"\boxed{{{answer}}}", grader_of(name, {}, {})).status is status


def test_a_set_that_is_scored_by_the_library_accepts_another_solution(pool: VerifierPool) -> None:
    [entry] = reasoning_gym.create_dataset("graph_color", seed=5, size=1)
    colours = json.dumps({str(vertex): colour for vertex, colour in entry["metadata"]["possible_answer"].items()})
    grader = grader_of("graph_color", {}, entry)
    assert pool.verify("", rf"\boxed{{{colours}}}", grader).status is Status.CORRECT


def test_a_broken_set_is_our_own_trouble(pool: VerifierPool) -> None:
    """Where a set cannot be made, nothing is known of the answer."""
    assert pool.verify("", r"\boxed{1}", grader_of("jugs", {"no_such_field": 1}, {})).status is Status.CRASH


def test_an_entry_without_an_answer_needs_the_library(pool: VerifierPool) -> None:
    library = grader_of("graph_color", {}, {})
    golds = [("", EXACT), ("", library), ("1 " * 999, EXACT), ("{'s': '}['}", EXACT)]
    assert pool.check_golds(golds) == [False, True, False, False]  # the last two cannot be given in a box
    assert not same_values("1", "1+")
    assert not same_text("ab", "a b")

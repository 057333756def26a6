"""The verifier's rules as properties: any spelling of a value is that value, and no tail leaves it as it is."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from microbudget_rl.actors.messages import Status
from microbudget_rl.rewards.verify import verify
from microbudget_rl.rewards.verify.comparison import decide_by_text, unusual
from microbudget_rl.rewards.verify.text.spelling import plain
from tests.rewards.corpus import CASES, read

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "grading.md"
EXAMPLE = re.compile(r"\| `(?P<gold>[^`]+)` \| `(?P<answer>[^`]+)` \| (?P<verdict>\w+)(: .+)? \|")

TABLE = [
    pytest.param(row["gold"], row["answer"], row["verdict"], id=f"{row['gold']} {row['answer']}")
    for row in EXAMPLE.finditer(DOCUMENT.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("gold", "answer", "verdict"), TABLE)
def test_documented_examples_get_their_documented_status(gold: str, answer: str, verdict: str):
    assert verify(gold, rf"\boxed{{{answer}}}").status == verdict


def test_every_row_of_the_document_is_an_example():
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) == len(TABLE) > 70


def settled(gold: str, answer: str) -> Status | None:
    """Return the status that text alone gives, as in the process that must not hang."""
    return decide_by_text(plain(gold), plain(answer))


MOST_REFUSED = {"heldout": 2, "classes": 5, "classes_heldout": 3}
"""Right answers of the sets of whole responses that are refused: a raised fraction, a box without braces."""


@pytest.mark.long
@pytest.mark.parametrize("file", MOST_REFUSED)
def test_whole_responses_fare_no_worse_than_before(file: str):
    cases = [case for topic in read(file).values() for case in topic]
    verdicts = [(case, verify(case.gold, case.answer).status is Status.CORRECT) for case in cases]
    assert [case for case, taken in verdicts if taken and case.status is Status.WRONG] == []
    refused = [case for case, taken in verdicts if not taken and case.status is Status.CORRECT]
    assert len(refused) <= MOST_REFUSED[file], refused


def test_ambiguous_gold_answers_are_told_apart():
    ambiguous = ["750 g", "3,75", "p^2+q=0", "2x=9", "1.000", "-12.500", "12:30"]
    clear = ["750", r"750\text{ g}", "3, 75", "1,750", "3.142", "0.500", "q=9", "f(2)=9", "2x+1", "x>9", "(3,75)"]
    assert [gold for gold in (*ambiguous, *clear, "3:5") if unusual(plain(gold))] == ambiguous


FORMS: dict[str, list[str]] = yaml.safe_load((CASES / "forms.yaml").read_text(encoding="utf-8"))
RATIONAL, AROUND, TAILS = FORMS["rational"], FORMS["around"], FORMS["tails"]
INTEGRAL: list[Callable[[int], str]] = [
    str,
    lambda value: f"{value}.0",
    lambda value: f"{value:,}",
    lambda value: f"{value:,}".replace(",", "{,}"),
    lambda value: f"{'-' if value < 0 else ''}({abs(value)})",
]
EQUATION = "m+n=#"
"""Names a value in an answer; as a gold answer it is an equation, which its right side alone does not answer."""


def fraction(value: Fraction, form: str = RATIONAL[0], around: str = "#") -> str:
    """Write a fraction in a form of RATIONAL."""
    above, below = value.numerator, value.denominator
    letters = {"N": above, "D": below, "S": "-" if above < 0 else "", "A": abs(above)}
    letters |= {"M": -above, "T": 3 * above, "U": 3 * below}
    return around.replace("#", form.translate(str.maketrans({name: str(part) for name, part in letters.items()})))


RATIONALS = st.fractions(max_denominator=10**4).filter(lambda value: value.denominator > 1 and value != 0)
INTEGERS = st.integers(-(10**9), 10**9).filter(lambda value: abs(value) > 1)


FORM, CONTEXT, TAIL = st.sampled_from(RATIONAL), st.sampled_from(AROUND), st.sampled_from(TAILS)


@given(RATIONALS, FORM, FORM, CONTEXT)
def test_a_fraction_is_itself_in_every_spelling(value: Fraction, one: str, other: str, around: str):
    assert settled(fraction(value, one), fraction(value, other, around)) is Status.CORRECT


@given(INTEGERS, st.sampled_from(INTEGRAL), CONTEXT)
def test_an_integer_is_itself_in_every_spelling(value: int, spelt: Callable[[int], str], around: str):
    assume("," not in spelt(value) or "left(" not in around)  # (1,234) is a point
    written = around.replace("#", spelt(value))
    assert settled(str(value), written) is Status.CORRECT
    assert settled(written, str(value)) is (Status.WRONG if around == EQUATION else Status.CORRECT)


@given(RATIONALS, RATIONALS, FORM, CONTEXT)
def test_a_fraction_is_no_other(one: Fraction, other: Fraction, form: str, around: str):
    assume(one != other)
    assert settled(fraction(one), fraction(other, form, around)) is Status.WRONG


@given(INTEGERS, st.sampled_from(INTEGRAL), RATIONALS, FORM, TAIL)
def test_no_tail_leaves_a_value_as_it_is(
    value: int, spelt: Callable[[int], str], other: Fraction, form: str, tail: str
):
    assert settled(str(value), tail.replace("#", spelt(value))) is not Status.CORRECT
    assert settled(fraction(other), fraction(other, form, tail)) is not Status.CORRECT


@given(st.permutations(range(-4, 5)), st.integers(2, 6), st.sampled_from([", ", " or ", r"\text{ and }", "; "]))
def test_a_set_has_no_order_and_a_tuple_has_one(numbers: list[int], size: int, joined: str):
    values = numbers[:size]
    ordered = ", ".join(map(str, sorted(values)))
    assert settled(rf"\{{{ordered}\}}", rf"x \in \{{{joined.join(map(str, values))}\}}") is Status.CORRECT
    assert settled(ordered, joined.join(f"x={value}" for value in values)) is Status.CORRECT
    tuples = Status.CORRECT if values == sorted(values) else Status.WRONG
    assert settled(f"({ordered})", f"P = ({', '.join(map(str, values))})") is tuples


@given(INTEGERS)
def test_plus_and_minus_are_two_values(value: int):
    assert settled(rf"\{{0, {value}, {-value}\}}", rf"\{{\pm {abs(value)}, 0\}}") is Status.CORRECT
    assert settled(str(value), rf"\pm {abs(value)}") is Status.WRONG

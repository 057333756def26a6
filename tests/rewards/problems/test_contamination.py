from itertools import permutations

import pytest

from microbudget_rl.rewards.problems.contamination import near_duplicates
from microbudget_rl.rewards.problems.rows import RawProblem

TEXT = "How many of the first twenty numbers are neither even nor divisible by three or by seven, nor prime?"


def alike(one: str, other: str, answers: tuple[str, str] = ("", "")) -> bool:
    (found,) = near_duplicates([RawProblem(one, answers[0])], [RawProblem(other, answers[1])])
    return bool(found)


def test_drawings_are_not_compared():
    assert alike(f"[asy] fill(C); [/asy] {TEXT}", f"{TEXT} [asy] draw(A--B); [/asy]")
    assert not alike(f"[asy] fill(C); [/asy] {TEXT}", f"[asy] {TEXT} [/asy] What is the area of the figure?")


@pytest.mark.parametrize("text", ["[asy]" * 200_000, "[/asy]" + "[asy]" * 200_000, "[asy]" * 200_000 + "[/asy]"])
def test_endless_drawings_take_linear_time(text: str):
    assert not alike(TEXT, text)


TRAIN = "A train goes 60 miles in 2 hours. What is its average speed in miles per hour?"
BILL = "Paul paid $1,200 for a sofa and $75 for each of four chairs. How much did he pay in all?"


@pytest.mark.parametrize(
    ("one", "other", "answers", "same"),
    [
        (BILL, "Find the bill: 4 stools at 75 dollars, and a bed at 1200.", ("1500", "$1,500"), True),
        (BILL, "Of 1200 seats in 4 halls, 75 are broken. How many work?", ("1500", "1125"), False),
        ("Ann has 3 cats and 4 dogs. How many pets?", "Of 4 plums, 3 rot. Add both.", ("7", "7"), False),  # chance
        ("Calculate 3 + 4.", "State the final answer to this problem: 4 + 3 =", ("7", "7"), True),
        (r"What is $3 \times 4 + 2$?", r"What is $2 + 4 \cdot 3$?", ("14", "14"), True),
        ("What is 2 + 3 + 4/5?", "What is 3 + 2 + 4/5?", (r"\frac{29}{5}", r"\frac{29}{5}"), True),
        ("Calculate (3 + 4) * 2.", "State the result: 3 + 4 * 2 =", ("14", "11"), False),
        (BILL, "Is 75 a fourth of 1200?", ("no", "no"), False),
        (
            "Tom has 3 apples and buys 4 more. How many apples does he have?",
            "Tom owns 3 apples. He then purchases 4 apples. How many apples does he have now?",
            ("", ""),
            True,
        ),
        (
            TRAIN,
            "What is the speed, in miles per hour, of a train that goes 60 miles in 2 hours?",
            ("", ""),
            True,
        ),
        (TRAIN, TRAIN.replace("60", "90"), ("", ""), False),
        ("Compute 3 - 4 + 2.", "Compute 3 - 2 + 4.", ("", ""), False),
        ("Compute 12 / 2 * 3.", "Compute 12 / 3 * 2.", ("", ""), False),
        ("Compute 2^3 * 5.", "Compute 2^5 * 3.", ("", ""), False),
        ("Compute 2 * 3 + 4.", "Compute 2 * 4 + 3.", ("", ""), False),
        ("What is the sum 3 + 4 in base ten?", "What is the sum 3 - 4 in base ten?", ("", ""), False),
    ],
)
def test_the_same_problem_in_other_words_is_found_and_no_other(
    one: str, other: str, answers: tuple[str, str], same: bool
):
    assert alike(one, other, answers) == alike(other, one, answers[::-1]) == same


def test_numbers_that_many_problems_have_tell_none_of_them_apart():
    """As those of the instructions for an answer."""
    one, *others = (RawProblem(f"Is {name} a knight? Say 1000001 for yes.", "1000001") for name in "abcdefghijkl")
    assert [len(found) for found in near_duplicates([one], others)] == [0]


def test_copies_and_commuted_problems_are_found_however_many_there_are():
    sums = [RawProblem(f"Problem 7: compute {' + '.join(order)}.", "") for order in permutations("3912")]
    assert near_duplicates(sums[:1], sums) == [set(range(24))]
    asked = [RawProblem(f"Add {a} + {b}.", "15") for a, b in ("39", "93")] * 6
    assert near_duplicates([RawProblem("What is 9 + 3?", "15")], asked) == [set(range(12))]

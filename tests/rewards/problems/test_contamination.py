import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.problems.contamination import commuted, first_families, near_duplicates

TEXT = "How many of the first twenty numbers are neither even nor divisible by three or by seven, nor prime?"


def alike(one: str, other: str) -> bool:
    (found,) = near_duplicates([one], [other])
    return bool(found)


def test_drawings_are_not_compared() -> None:
    train = [f"{TEXT} [asy] draw(A--B); [/asy]", f"[asy] {TEXT} [/asy] What is the area of the figure?"]
    assert near_duplicates([f"[asy] fill(C); [/asy] {TEXT}"], train) == [{0}]


@pytest.mark.parametrize("text", ["[asy]" * 200_000, "[/asy]" + "[asy]" * 200_000, "[asy]" * 200_000 + "[/asy]"])
def test_endless_drawings_take_linear_time(text: str) -> None:
    assert not alike(TEXT, text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute 3 + 4.", "compute $4 + 3$."),
        (r"What is $3 \times 4 + 2$?", r"What is $2 + 4 \cdot 3$?"),
        ("What is 2 + 3 + 4/5?", "What is 3 + 2 + 4/5?"),
        (
            "Tom has 3 apples and buys 4 more. How many apples does he have?",
            "Tom owns 3 apples. He then purchases 4 apples. How many apples does he have now?",
        ),
        (
            "A train goes 60 miles in 2 hours. What is its average speed in miles per hour?",
            "What is the average speed, in miles per hour, of a train that goes 60 miles in 2 hours?",
        ),
    ],
)
def test_the_same_problem_in_other_words_is_found(one: str, other: str) -> None:
    assert alike(one, other)
    assert alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute 3 - 4 + 2.", "Compute 3 - 2 + 4."),
        ("Compute 12 / 2 * 3.", "Compute 12 / 3 * 2."),
        ("Compute 2^3 * 5.", "Compute 2^5 * 3."),
        ("Compute 2 * 3 + 4.", "Compute 2 * 4 + 3."),
        ("What is the value of the sum 3 + 4 in base ten?", "What is the value of the sum 3 - 4 in base ten?"),
        (
            "A train goes 60 miles in 2 hours. What is its average speed in miles per hour?",
            "A train goes 90 miles in 2 hours. What is its average speed in miles per hour?",
        ),
    ],
)
def test_another_problem_is_not_taken_for_the_same(one: str, other: str) -> None:
    assert not alike(one, other)
    assert not alike(other, one)


@given(st.text("0123456789+*-/^. ", max_size=20))
def test_commuting_keeps_the_characters_and_is_idempotent(text: str) -> None:
    assert sorted(commuted(text)) == sorted(text.replace(" ", ""))
    assert commuted(commuted(text)) == commuted(text)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), unique=True, max_size=40), st.integers(0, 20))
def test_no_family_is_on_both_sides(sums: list[tuple[int, int]], wanted: int) -> None:
    held = first_families([f"What is {one} + {two}?" for one, two in sums], wanted)
    others = set(range(len(sums))) - set(held)
    assert not {frozenset(sums[index]) for index in held} & {frozenset(sums[index]) for index in others}
    assert min(wanted - 1, len(sums)) <= len(held) <= wanted  # a pair may not fit in the last place

"""Overlaps of problems from strangers."""

import pytest

from rewards.problems.contamination import overlapping

TEXT = "How many of the first twenty numbers are neither even nor divisible by three or by seven, nor prime?"


def test_drawings_are_left_out_of_what_is_compared() -> None:
    train = [f"{TEXT} [asy] draw(A--B); [/asy]", f"[asy] {TEXT} [/asy] What is the area of the figure?"]
    assert overlapping(train, [f"[asy] fill(C); [/asy] {TEXT}"]) == [True, False]


@pytest.mark.parametrize("text", ["[asy]" * 200_000, "[/asy]" + "[asy]" * 200_000, "[asy]" * 200_000 + "[/asy]"])
def test_drawings_that_never_end_do_not_take_forever(text: str) -> None:
    """Looked for from every beginning to the end of the text, this would take hours."""
    assert overlapping([text], [TEXT]) == [False]

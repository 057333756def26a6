import pytest

from rewards.problems.contamination import overlapping

TEXT = "How many of the first twenty numbers are neither even nor divisible by three or by seven, nor prime?"


def test_drawings_are_not_compared() -> None:
    train = [f"{TEXT} [asy] draw(A--B); [/asy]", f"[asy] {TEXT} [/asy] What is the area of the figure?"]
    assert overlapping(train, [f"[asy] fill(C); [/asy] {TEXT}"]) == [True, False]


@pytest.mark.parametrize("text", ["[asy]" * 200_000, "[/asy]" + "[asy]" * 200_000, "[asy]" * 200_000 + "[/asy]"])
def test_endless_drawings_take_linear_time(text: str) -> None:
    assert overlapping([text], [TEXT]) == [False]

import pytest

from actors.adapter_check.effect_check import unchanged
from actors.adapter_check.swap_check import Answers
from actors.messages import AdapterRef, Group, Sample
from tests.fakes import make_problem


def answers(*samples: tuple[tuple[int, ...], tuple[float, ...]]) -> Answers:
    return tuple(
        Group(-1, make_problem(number), AdapterRef(0, 0, ""), (Sample(ids, logprobs, "", "stop"),))
        for number, (ids, logprobs) in enumerate(samples)
    )


BASE = answers(((1, 2, 3), (-1.0, -2.0, -0.5)), ((4, 5), (-0.1, -0.2)))
NOISY = answers(((1, 2, 3), (-1.01, -2.02, -0.5)), ((4, 5), (-0.1, -0.21)))
STEPPED = answers(((1, 2, 3), (-1.2, -2.2, -0.7)), ((4, 5), (-0.3, -0.4)))
OTHER_WORDS = answers(((1, 2, 9), (-1.0, -2.0, -0.9)), ((4, 5), (-0.1, -0.2)))
BY_A_HAIR = answers(((1, 2, 3), (-1.0004, -2.0, -0.5)), ((4, 5), (-0.1, -0.2)))


@pytest.mark.parametrize(
    ("again", "adapted", "expected"),
    [
        (BASE, BASE, True),
        (BASE, BY_A_HAIR, True),
        (BASE, STEPPED, False),
        (BASE, OTHER_WORDS, False),
        (NOISY, NOISY, True),
        (NOISY, STEPPED, False),
        (OTHER_WORDS, OTHER_WORDS, True),
        (OTHER_WORDS, STEPPED, False),
    ],
)
def test_change_has_to_exceed_the_noise(again: Answers, adapted: Answers, expected: bool) -> None:
    assert unchanged(BASE, again, adapted) == expected

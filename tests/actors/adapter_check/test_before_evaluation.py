import pytest

from actors.adapter_check.before_evaluation import unchanged
from actors.adapter_check.prompts import Responses
from actors.messages import AdapterRef, Group, Sample
from tests.fakes import make_problem


def responses(*samples: tuple[tuple[int, ...], tuple[float, ...]]) -> Responses:
    return tuple(
        Group(-1, make_problem(number), AdapterRef(0, 0, ""), (Sample(ids, logprobs, "", "stop"),))
        for number, (ids, logprobs) in enumerate(samples)
    )


BASE = responses(((1, 2, 3), (-1.0, -2.0, -0.5)), ((4, 5), (-0.1, -0.2)))
NOISY = responses(((1, 2, 3), (-1.01, -2.02, -0.5)), ((4, 5), (-0.1, -0.21)))
STEPPED = responses(((1, 2, 3), (-1.2, -2.2, -0.7)), ((4, 5), (-0.3, -0.4)))
OTHER_WORDS = responses(((1, 2, 9), (-1.0, -2.0, -0.9)), ((4, 5), (-0.1, -0.2)))
BY_A_HAIR = responses(((1, 2, 3), (-1.0004, -2.0, -0.5)), ((4, 5), (-0.1, -0.2)))


@pytest.mark.parametrize(
    ("again", "adapted", "expected"),
    [
        (BASE, BASE, True),
        (BASE, BY_A_HAIR, True),
        (BASE, STEPPED, False),
        (BASE, OTHER_WORDS, False),
        (NOISY, NOISY, True),
        (NOISY, STEPPED, False),
    ],
)
def test_change_has_to_exceed_the_noise(again: Responses, adapted: Responses, expected: bool) -> None:
    assert unchanged(BASE, again, adapted) == expected

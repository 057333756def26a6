import pytest

from microbudget_rl.actors.adapter_check.at_work import CheckAfterSync, unchanged
from microbudget_rl.actors.adapter_check.prompts import Responses
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import AdapterRef, Group, Sample, Scores
from tests.fakes import make_problem


def compare(
    check: CheckAfterSync, engine: list[float], policy: list[float], base: list[float], *reference: float
) -> dict[str, float]:
    sample = Sample(tuple(range(len(engine))), tuple(engine), "", "length")
    group = Group(-1, make_problem(0), AdapterRef(3, 0, "nowhere"), (sample,))
    return check.compare(((group,),), ((Scores(tuple(policy), tuple(base), reference),),))


def test_noise_widens_the_band_but_not_without_limit_and_counts_after_a_resume():
    check = CheckAfterSync(noise_floor=0.01)
    compare(check, [-1.0], [-1.05], [-1.05])
    for measured in (check, CheckAfterSync(noise_floor=0.01, noise=check.noise)):
        compare(measured, [-1.0], [-1.14], [-1.14])
        with pytest.raises(Halted):
            compare(measured, [-1.0], [-1.16], [-1.16])
    with pytest.raises(Halted):
        compare(CheckAfterSync(noise_floor=0.01), [-1.0], [-1.5], [-1.5])


def test_more_disagreement_is_noise_where_tokens_are_unlikely_but_not_without_limit():
    for entropy, allowed in ((0.5, 0.1), (2.0, 0.1), (3.0, 0.15), (9.0, 0.2)):
        check = CheckAfterSync(noise_floor=0.1, noise=0.0)
        compare(check, [-entropy], [-entropy - allowed + 0.001], [0.0])
        with pytest.raises(Halted):
            compare(check, [-entropy], [-entropy - allowed - 0.001], [0.0])
    with pytest.raises(Halted):
        compare(CheckAfterSync(noise_floor=0.1, noise=0.0), [-0.5], [-9.0], [-0.5])


def test_an_adapter_that_is_not_applied_from_the_start_is_no_noise():
    """Version 0 after a warm start has moved from the base model."""
    with pytest.raises(Halted):
        compare(CheckAfterSync(noise_floor=0.01), [-1.0], [-1.06], [-1.002])


def test_movement_is_measured_from_the_base_model_and_kl_from_the_reference():
    found = compare(CheckAfterSync(noise_floor=0.01), [-1.0], [-1.0], [-3.0], -1.0)
    assert (found["adapter_check/movement"], found["policy/kl_to_base"]) == (2.0, 0.0)


def test_each_engine_has_the_band_of_its_own_entropy():
    """The second engine is nearer to the learner, and beyond its band; the first one is within its wide band."""
    check = CheckAfterSync(noise_floor=0.1, noise=0.0)
    groups, scores = [], []
    for engine, policy in ((-3.0, -3.14), (-0.5, -0.62)):
        sample = Sample((0,), (engine,), "", "length")
        groups.append((Group(-1, make_problem(0), AdapterRef(3, 0, "nowhere"), (sample,)),))
        scores.append((Scores((policy,), (policy,), ()),))
    with pytest.raises(Halted, match="rollout-1, unlike the others"):
        check.compare(tuple(groups), tuple(scores))


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
def test_change_has_to_exceed_the_noise(again: Responses, adapted: Responses, expected: bool):
    assert unchanged(BASE, again, adapted) == expected

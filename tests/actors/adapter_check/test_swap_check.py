from math import inf, isfinite, nan

from actors.adapter_check.swap_check import Finding, SwapCheck
from actors.messages import AdapterRef, Group, Sample, Scores
from tests.fakes import make_problem


def probe(engine: list[float], policy: list[float], base: list[float]) -> tuple:
    sample = Sample(tuple(range(len(engine))), tuple(engine), "", "length")
    group = Group(-1, make_problem(0), AdapterRef(3, 0, "nowhere"), (sample,))
    return ((group,),), (((Scores(tuple(policy), tuple(base)),),),)


def test_agreement_is_undecided_until_the_learner_has_moved() -> None:
    check = SwapCheck(noise_floor=0.1)
    assert check.compare(*probe([-1.0, -2.0], [-1.03, -2.03], [-1.03, -2.03])).finding is Finding.UNDECIDED
    assert check.compare(*probe([-1.0, -2.0], [-1.03, -2.03], [-1.5, -2.5])).finding is Finding.AGREES


def test_base_model_in_place_of_the_adapter_is_named() -> None:
    check = SwapCheck(noise_floor=0.1)
    check.compare(*probe([-1.0], [-1.0], [-1.0]))
    comparison = check.compare(*probe([-1.0], [-2.0], [-1.0]))
    assert comparison.finding is Finding.DISAGREES
    assert "policy-v3-r0" in comparison.diagnosis
    assert "the adapter is not applied" in comparison.diagnosis


def test_other_weights_are_told_from_the_base_model() -> None:
    check = SwapCheck(noise_floor=0.1)
    comparison = check.compare(*probe([-1.0, -2.0], [-2.0, -1.0], [-2.0, -2.0]))
    assert comparison.finding is Finding.DISAGREES
    assert "the weights of another adapter" in comparison.diagnosis


def test_noise_widens_the_band_but_not_without_limit() -> None:
    check = SwapCheck(noise_floor=0.01)
    assert check.compare(*probe([-1.0], [-1.05], [-1.05])).finding is Finding.UNDECIDED
    assert check.compare(*probe([-1.0], [-1.14], [-1.14])).finding is Finding.UNDECIDED
    assert check.compare(*probe([-1.0], [-1.16], [-1.16])).finding is Finding.DISAGREES
    assert SwapCheck(noise_floor=0.01).compare(*probe([-1.0], [-1.5], [-1.5])).finding is Finding.DISAGREES


def test_noise_measured_before_a_resume_counts_after_it() -> None:
    """A wrong adapter in the first comparison after a resume must not pass for noise."""
    first = SwapCheck(noise_floor=0.01)
    first.compare(*probe([-1.0], [-1.01], [-1.01]))
    resumed = SwapCheck(noise_floor=0.01, noise=first.noise)
    assert resumed.compare(*probe([-1.0], [-1.15], [-1.5])).finding is Finding.DISAGREES


def test_what_is_no_number_agrees_with_nothing_and_is_no_noise() -> None:
    for broken in ([nan, -1.0], [-1.0, nan], [-inf, -1.0]):
        check = SwapCheck(noise_floor=0.01)
        comparison = check.compare(*probe(broken, [-1.0, -1.0], [-1.0, -1.0]))
        assert comparison.finding is Finding.DISAGREES
        assert "no numbers for policy-v3-r0" in comparison.diagnosis
        assert isfinite(check.band)


def test_divergence_from_base_is_zero_for_the_base_and_positive_otherwise() -> None:
    check = SwapCheck(noise_floor=0.1)
    assert check.compare(*probe([-1.0], [-1.0], [-1.0])).kl_to_base == 0.0
    assert check.compare(*probe([-1.0], [-1.0], [-1.5])).kl_to_base > 0.0

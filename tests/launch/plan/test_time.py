import pytest

from actors.formats import duration
from tests.launch.plan.plans import entry, machine, plan


def test_a_second_card_makes_updates_shorter() -> None:
    one, two = (plan("r8_instruct", machine("A40", gpus)).estimate for gpus in (1, 2))
    assert one
    assert two
    assert two.update_s < one.update_s
    assert one.contended > two.contended == 1.0


def test_rank_costs_time_and_memory() -> None:
    low, high = (plan(recipe, machine("A40")) for recipe in ("r8_instruct", "r256_instruct"))
    assert low.estimate
    assert high.estimate
    assert low.estimate.update_s < high.estimate.update_s
    assert all(low.needed(place) < high.needed(place) for place in low.available)


def test_what_the_learner_repeats_costs_time_and_what_it_keeps_costs_memory() -> None:
    plain = plan("r8_instruct", machine("A40"), "learner.gradient_checkpointing=off")
    again = plan("r8_instruct", machine("A40"), "learner.gradient_checkpointing=on")
    steps = plan("r8_instruct", machine("A40"), "algorithm.preset=dapo", "algorithm.steps_per_batch=2")
    base = plan("r8_instruct", machine("A40"), "algorithm.kl=0.001")
    assert plain.costs
    for other, factor in ((again, 1.5), (steps, 2.0), (base, 1.5)):
        assert other.costs
        assert other.costs.learn_s == pytest.approx(factor * plain.costs.learn_s, rel=0.05)
    assert entry(again, "learner: activations") < entry(plain, "learner: activations") / 5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (90, "90 s"), (600, "10 min"), (86400, "24 h"), (259200, "3 days")]
)
def test_durations_are_in_a_persons_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text

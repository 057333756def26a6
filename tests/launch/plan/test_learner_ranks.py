import pytest

from conf.errors import BadInput
from launch.hardware.machine import Machine
from tests.launch.plan.plans import CPU, machine, plan


def test_cards_are_given_to_the_learner_while_that_makes_updates_shorter() -> None:
    ranks = {gpus: len(plan("r8_instruct", machine("A40", gpus)).placement.learners) for gpus in (1, 2, 4, 16)}
    assert ranks[1] == ranks[2] == 1 <= ranks[4] < ranks[16] < 15
    derived, asked = plan("r8_instruct", machine("A40", 16)), plan("r8_instruct", machine("A40", 16), "learner.ranks=1")
    assert len(asked.placement.learners) == 1
    assert derived.estimate
    assert asked.estimate
    assert derived.estimate.update_s < asked.estimate.update_s


def test_ranks_that_take_turns_with_rollouts_are_weighed_by_that() -> None:
    placement = plan("r256_instruct", machine("A40", 4), "learner.max_staleness=0").placement
    update_s = {}
    for ranks in (1, 2, 3):
        estimate = plan(
            "r256_instruct", machine("A40", 4), "learner.max_staleness=0", f"learner.ranks={ranks}"
        ).estimate
        assert estimate
        assert estimate.update_s == pytest.approx(estimate.generate_s + estimate.learn_s)
        update_s[ranks] = estimate.update_s
    assert len(placement.learners) == min(update_s, key=lambda ranks: update_s[ranks])


def test_ranks_that_the_host_has_no_memory_for_are_not_chosen() -> None:
    many = plan("r8_instruct", machine("A40", 16))
    short = plan("r8_instruct", machine("A40", 16, host_memory=int(many.needed("host")) - 1))
    assert short.fits
    assert len(short.placement.learners) > len(many.placement.learners)


@pytest.mark.parametrize(
    ("where", "ranks", "most"),
    [(CPU, 3, 2), (machine("A40"), 2, 1), (machine("A40", 2), 2, 1), (machine("A40", 4), 4, 3)],
)
def test_too_many_ranks_are_refused(where: Machine, ranks: int, most: int) -> None:
    with pytest.raises(BadInput, match=rf"learner.ranks={ranks}: too many for .*; use at most {most}"):
        plan("quickstart", where, f"learner.ranks={ranks}")
    assert len(plan("quickstart", where, f"learner.ranks={most}").placement.learners) == most

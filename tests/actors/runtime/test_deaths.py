import pytest

from actors.errors import ActorDied
from actors.runtime.deaths import FIRST_PAUSE_S, IN_A_ROW, LATELY, LATELY_S, Deaths

DEATH = ActorDied("rollout-0 died: it was killed by signal 9")


def test_first_death_costs_no_pause_and_those_in_a_row_more_and_more() -> None:
    deaths = Deaths("rollout-0")
    assert deaths.pause(0.0, DEATH) == 0.0
    assert deaths.pause(1.0, DEATH) == FIRST_PAUSE_S
    with pytest.raises(ActorDied, match=f"rollout-0 died {IN_A_ROW} times in a row: .*signal 9"):
        deaths.pause(2.0, DEATH)


def test_an_answer_begins_a_new_row() -> None:
    deaths = Deaths("rollout-0")
    for time in range(LATELY - 1):
        assert deaths.pause(float(time), DEATH) == 0.0
        deaths.answered()


def test_actor_that_keeps_dying_between_answers_is_given_up() -> None:
    deaths = Deaths("rollout-0")
    for time in range(LATELY - 1):
        deaths.pause(60.0 * time, DEATH)
        deaths.answered()
    with pytest.raises(ActorDied, match=f"rollout-0 died {LATELY} times in 5 minutes: .*signal 9"):
        deaths.pause(60.0 * (LATELY - 1), DEATH)


def test_old_deaths_are_forgotten() -> None:
    deaths = Deaths("rollout-0")
    for time in range(3 * LATELY):
        deaths.pause(LATELY_S / (LATELY - 1) * time, DEATH)
        deaths.answered()

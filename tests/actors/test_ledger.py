from hypothesis import given
from hypothesis import strategies as st

from actors.ledger import Ledger
from tests.actors.test_budget import HandClock


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0, 1000)), min_size=1))
def test_seconds_of_every_actor_add_up_to_the_time_it_was_there(steps: list[tuple[str, str, float]]) -> None:
    clock = HandClock()
    ledger = Ledger(clock)
    first: dict[str, float] = {}
    for actor, activity, seconds in steps:
        ledger.enter(actor, activity)
        first.setdefault(actor, clock.time)
        clock.time += seconds
    for actor, activities in ledger.seconds.items():
        assert abs(sum(activities.values()) - (clock.time - first[actor])) < 1e-6


def test_looking_does_not_change_what_is_counted() -> None:
    clock = HandClock()
    ledger = Ledger(clock)
    ledger.enter("learner", "update")
    clock.time += 3
    assert ledger.seconds == {"learner": {"update": 3.0}}
    clock.time += 4
    assert ledger.seconds == {"learner": {"update": 7.0}}


def test_counts_add_up() -> None:
    ledger = Ledger(HandClock())
    ledger.count("tokens/useful", 5)
    ledger.count("tokens/useful", 6)
    assert ledger.counts == {"tokens/useful": 11}

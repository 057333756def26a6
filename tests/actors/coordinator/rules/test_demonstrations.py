from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.rules.demonstrations import lesson, updates_per_pass, worth_learning
from actors.messages import Demonstration, Group, Sample, Status
from conf.schema.warm_start import WarmStartConfig
from tests.fakes import make_problem, make_reward


def group_of(*samples: tuple[tuple[int, ...], Status | None, str]) -> Group:
    made = tuple(Sample(ids, (), "", reason) for ids, _, reason in samples)
    rewards = tuple(make_reward(float(status is None), status) for _, status, _ in samples)
    return Group(0, make_problem(1), None, made, rewards)


def test_only_right_whole_and_different_responses_are_learned_the_shortest_first() -> None:
    group = group_of(
        ((1, 2, 3), None, "stop"),
        ((1, 2), None, "stop"),
        ((1, 2), None, "stop"),
        ((4,), Status.WRONG, "stop"),
        ((5,), Status.TIMEOUT, "stop"),
        ((6,), None, "length"),
        ((1, 2, 3, 4), None, "stop"),
    )
    found = worth_learning(group, WarmStartConfig(per_problem=3), seed=0)
    assert found == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]
    assert worth_learning(group, WarmStartConfig(per_problem=1), seed=0) == [[1, 2]]
    drawn = [worth_learning(group, WarmStartConfig(per_problem=1, choice="random"), seed) for seed in range(20)]
    assert {len(each[0]) for each in drawn} == {2, 3, 4}
    assert drawn[0] == worth_learning(group, WarmStartConfig(per_problem=1, choice="random"), seed=0)


def test_what_earns_more_is_learned_before_what_is_shorter() -> None:
    group = group_of(((1,), None, "stop"), ((1, 2, 3), None, "stop"), ((1, 2), None, "stop"))
    group = replace(group, rewards=tuple(make_reward(total) for total in (0.9, 1.0, 1.0)))
    assert worth_learning(group, WarmStartConfig(per_problem=2), seed=0) == [[1, 2], [1, 2, 3]]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_a_pass_has_each_demonstration_once_in_an_order_of_its_own(count: int, per_update: int, seed: int) -> None:
    given = [Demonstration(make_problem(0), (number,)) for number in range(count)]
    parts = updates_per_pass(count, per_update)
    passes = []
    for first in (0, parts):
        batches = [lesson(given, per_update, seed, first + update) for update in range(parts)]
        assert Counter(each.token_ids[0] for batch in batches for each in batch) == Counter(range(count))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= per_update
        assert max(sizes) - min(sizes) <= 1
        passes.append(batches)
    assert count < 12 or passes[0] != passes[1]

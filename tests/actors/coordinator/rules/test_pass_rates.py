from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.rules.pass_rates import MOVERS, PassRates, histogram, moved, successes
from actors.messages import Group, Status
from actors.storage.state import PassRateRow
from conf.schema import CustomRewardConfig, RewardConfig
from tests.fakes import make_group, make_problem, make_reward

SAMPLES = 4


def make(index: int, problem: int, right: int) -> Group:
    scores = (1.0,) * right + (0.0,) * (SAMPLES - right)
    return replace(make_group(index, scores=scores), problem=make_problem(problem))


def reread(row: PassRateRow) -> PassRateRow:
    return PassRateRow.model_validate_json(row.model_dump_json())


def row(problem: str, rate: float) -> PassRateRow:
    return PassRateRow(problem=problem, tries=SAMPLES, rate=rate, first=rate, version=0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, SAMPLES)), max_size=20), st.integers(0, 20))
def test_a_memory_that_was_written_and_read_goes_on_as_the_same(played: list[tuple[int, int]], cut: int) -> None:
    whole = resumed = PassRates(SAMPLES)
    for index, each in enumerate(played):
        if index == cut:
            resumed = PassRates(SAMPLES, rows=[reread(known) for known in resumed.rows.values()])
        for memory in {id(known): known for known in (whole, resumed)}.values():
            memory.count(make(index, *each), index)
    assert whole.rows == resumed.rows
    assert sum(known.tries for known in whole.rows.values()) == SAMPLES * len(played)
    assert all(0 <= known.rate <= 1 for known in whole.rows.values())


def test_the_rate_follows_a_policy_that_has_learned() -> None:
    memory = PassRates(SAMPLES)
    for version in range(12):
        memory.count(make(version, 0, SAMPLES if version else 0), version + 1)
    known = memory.rows["p0"]
    assert (known.tries, known.first, known.version) == (12 * SAMPLES, 0.0, 12)
    assert 0.95 < known.rate < 1


def test_what_counts_as_right() -> None:
    group = make_group(0, scores=(1.0, 0.0, 0.0))
    assert successes(group, by_accuracy=True) == 1
    scored = replace(group, rewards=tuple(replace(make_reward(0.0), total=total) for total in (0.1, 0.9, 0.3)))
    assert (successes(scored, by_accuracy=True), successes(scored, by_accuracy=False)) == (0, 1)
    same = replace(group, rewards=tuple(replace(make_reward(1.0), total=0.1) for _ in range(3)))
    assert (successes(same, by_accuracy=True), successes(same, by_accuracy=False)) == (3, 0)
    memory = PassRates(3)
    memory.count(replace(group, rewards=(make_reward(1.0), *(make_reward(0.0, Status.TIMEOUT) for _ in range(2)))), 1)
    memory.count(replace(group, rewards=(make_reward(0.0, Status.CRASH),) * 3), 2)
    assert [(known.tries, known.rate, known.version) for known in memory.rows.values()] == [(1, 1.0, 1)]


def test_accuracy_alone_counts_unless_the_reward_has_other_parts() -> None:
    part = [CustomRewardConfig("a.b:length")]
    others = (RewardConfig(accuracy=0.0), RewardConfig(cosine=1.0), RewardConfig(custom=part))
    assert [each.by_accuracy for each in (RewardConfig(format=0.5, boxed=0.1), *others)] == [True, False, False, False]


def test_classes_of_a_histogram() -> None:
    assert [*histogram([0.0, 0.125, 0.25, 0.5, 0.76, 1.0, 1.0]).values()] == [1, 2, 1, 1, 2]


def test_problems_are_named_that_rose_or_fell_most() -> None:
    firsts = [number / 30 for number in range(31)]
    risen = [row(f"r{number}", 1.0).model_copy(update={"first": first}) for number, first in enumerate(firsts)]
    fallen = [row("f0", 0.5).model_copy(update={"first": first, "prompt": "why"}) for first in (0.6, 1.0)]
    assert moved([*fallen, *risen]) == [*risen[:MOVERS], *fallen]
    assert moved(risen[30:]) == []
    assert [known.prompt for known in PassRates(SAMPLES, rows=fallen).rows.values()] == [""]

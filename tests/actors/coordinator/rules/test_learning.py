from contextlib import nullcontext
from dataclasses import replace

import pytest

from microbudget_rl.actors.coordinator.rules.learning import FRUITLESS_BATCHES, FruitlessStreak
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import Reward, Status
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.conftest import weighed
from tests.fakes import make_group, make_reward

RIGHT, WRONG = make_reward(1.0), make_reward(0.0)
LATE, LOST = make_reward(0.0, Status.TIMEOUT), make_reward(0.0, Status.CRASH)
EARNS_NOTHING = replace(RIGHT, total=0.0, parts={"accuracy": 0.0}, counted=True, failure=Status.CRASH)


@pytest.mark.parametrize(
    ("pairs", "weighs_answers", "learned", "over"),
    [
        ([(RIGHT, RIGHT)], True, False, "every sample"),
        ([(RIGHT, LATE)], True, False, "every sample"),
        ([(RIGHT, RIGHT)], False, True, ""),
        ([(EARNS_NOTHING, EARNS_NOTHING)], True, True, ""),
        ([(WRONG, WRONG)], True, True, ""),
        ([(WRONG, WRONG)] * 7 + [(RIGHT, RIGHT)], True, False, ""),
        ([(WRONG, WRONG), (RIGHT, RIGHT)], True, True, "nothing more"),
        ([(LOST, LOST), (RIGHT, RIGHT)], True, True, ""),
    ],
)
def test_a_streak_completes_the_run_if_it_has_led_somewhere_and_else_halts_it(
    pairs: list[tuple[Reward, Reward]], weighs_answers: bool, learned: bool, over: str
):
    config = changed(Config(), {"learner.problems_per_update": 2, "reward.accuracy": float(weighs_answers)})
    streak = FruitlessStreak(config)
    with nullcontext() if over else pytest.raises(Halted, match="nothing can be learned"):
        for index in range(2 * FRUITLESS_BATCHES):
            assert not streak.end_reason
            streak.add(weighed(replace(make_group(index), rewards=pairs[index % len(pairs)]), config), learned)
    assert (bool(streak.end_reason), streak.end_reason.startswith(over)) == (bool(over), True)


def test_a_group_with_variance_begins_the_count_again():
    config = changed(Config(), {"learner.problems_per_update": 1})
    streak = FruitlessStreak(config)
    for index, rewards in enumerate([(RIGHT, RIGHT)] * 3 + [(RIGHT, WRONG)] + [(RIGHT, RIGHT)] * 3):
        streak.add(weighed(replace(make_group(index), rewards=rewards), config), learned=True)
    assert not streak.end_reason


def test_only_what_a_resumed_run_does_not_make_again_is_kept():
    streak, groups = FruitlessStreak(Config()), [make_group(index, scores=(1.0, 1.0)) for index in range(3)]
    for number, group in enumerate(groups):
        streak.add(group, learned=True, settled=number == 0)
    assert streak.state == {"right": 1}
    streak.settle(groups[1:2])
    assert streak.state == {"right": 2}

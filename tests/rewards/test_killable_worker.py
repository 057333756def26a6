from microbudget_rl.rewards.killable_worker import CLOCK_FACTOR, Limits


def test_a_call_may_take_its_deadline_for_each_text_of_a_list():
    limits = Limits(deadline_s=2.0, memory=2**30)
    assert limits.seconds(("7", "8")) == (2.0, CLOCK_FACTOR * 2.0)
    assert limits.seconds(("7", ["8", "9", "10"])) == (6.0, CLOCK_FACTOR * 6.0)

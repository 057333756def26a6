import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.messages import Status, Verdict
from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import Config, CustomRewardConfig, RewardConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.rewards.weighted_sum import RewardFunction, cosine, overlong, reward_function, well_formed
from tests.rewards.corpus import sample


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>2 + 2</think> 4", True),
        ("<think>2 + 2</think> \n", False),
        ("<think></think>4", False),
        ("</think>4", False),
        ("<think>2 + 2 4", False),
        ("4 <think>2 + 2</think> 4", False),
        ("<think>a</think>b</think>4", False),
        ("<think>a</think>4<think>", False),
    ],
)
def test_format_is_a_thought_and_an_answer(response: str, expected: bool):
    assert well_formed(response) is expected


def verdict(status: Status = Status.CORRECT, extracted: str | None = "4") -> Verdict:
    return Verdict(float(status is Status.CORRECT), status, extracted, 1.0)


@pytest.mark.parametrize("timeout", ["mask", "wrong"])
@pytest.mark.parametrize("status", list(Status))
def test_reward_is_a_weighted_sum_or_masked(status: Status, timeout: str):
    score = float(status is Status.CORRECT)
    rewarding = RewardFunction(RewardConfig(accuracy=2.0, format=0.2, timeout=timeout))
    earned = rewarding(sample("<think>2 + 2</think>\\boxed{4}"), verdict(status))
    assert earned.parts == {"accuracy": score, "format": 1.0}
    assert earned.total == pytest.approx(2 * score + 0.2)
    assert earned.verdict == verdict(status)
    assert earned.masked == (timeout == "mask" and status in (Status.TIMEOUT, Status.CRASH))
    assert rewarding(sample("\\boxed{4}"), verdict(status)).total == 2 * score


def test_a_readable_box_is_rewarded():
    boxing = RewardFunction(RewardConfig(accuracy=1.0, format=0.0, boxed=0.1))
    assert boxing(sample("\\boxed{5}"), verdict(Status.WRONG, "5")).total == pytest.approx(0.1)
    for empty in (None, "", " ", "$$", r"\text{ }", r"\,", "{}"):
        assert boxing(sample(rf"\boxed{{{empty}}}"), verdict(Status.UNPARSABLE, empty)).parts["boxed"] == 0.0


@given(tokens=st.integers(0, 10_000), ends=st.sampled_from([(1.0, 0.5), (-1.0, -0.5)]))
def test_cosine_is_monotonous_and_clamped(tokens: int, ends: tuple[float, float]):
    value, after = (cosine(tokens + more, 4096, *ends) for more in (0, 1))
    assert min(ends) <= value <= max(ends)
    assert abs(after - ends[1]) <= abs(value - ends[1]) + 1e-12
    assert cosine(0, 4096, *ends) == pytest.approx(ends[0])
    assert cosine(4096 + tokens, 4096, *ends) == pytest.approx(ends[1])


def test_long_responses_lose_up_to_one():
    lost = [overlong(tokens, 20_480, 4096.0) for tokens in (1, 16_384, 17_408, 20_480, 30_000)]
    assert lost == pytest.approx([0.0, 0.0, 0.25, 1.0, 1.0])
    settings = {"rollout.max_response_tokens": 20_480, "algorithm.overlong_buffer": 0.2, "reward.format": 0.0}
    earned = reward_function(changed(Config(), settings))(sample("\\boxed{4}", tokens=17_408), verdict())
    assert (earned.total, earned.parts["overlong"]) == pytest.approx((0.75, 0.25))


@pytest.mark.parametrize("timeout", ["mask", "wrong"])
def test_a_users_parts_are_weighted_or_masked(timeout: str):
    parts = [CustomRewardConfig("mine.rewards:brevity", 0.5), CustomRewardConfig("mine.rewards:tone", -1.0)]
    rewarding = RewardFunction(RewardConfig(format=0.0, timeout=timeout, custom=parts))
    earned = rewarding(sample("\\boxed{4}"), verdict(), {"brevity": 1.0, "tone": 0.25})
    assert earned.total == pytest.approx(1.0 + 0.5 - 0.25)
    assert (earned.parts["brevity"], earned.parts["tone"]) == (1.0, 0.25)
    failed = rewarding(sample("\\boxed{4}"), verdict(), {"tone": 0.0}, Status.CRASH)
    assert (failed.total, failed.status, failed.masked) == (0.0, Status.CRASH, timeout == "mask")
    assert failed.verdict == verdict()


@pytest.mark.parametrize(
    ("preset", "short", "long", "wrong"),
    [("paper", 1.2, 1.2, 0.2), ("open_rs", 3.0, 2.0, 0.0), ("tina", 3.0, 3.0, 1.0), ("dapo", 2.0, 1.0, -1.0)],
)
def test_presets_reward_well_formed_responses(preset: str, short: float, long: float, wrong: float):
    """short, long, wrong: the reward of a right short response, a right one at the limit, and a wrong one there."""
    between = ["accuracy", "format", "boxed", "cosine", "cosine_correct", "cosine_wrong", "after_thinking"]
    assert {name: list(keys) for name, keys in table("rewards").items()}[preset] == between
    algorithm = ["algorithm.preset=dapo"] if preset == "dapo" else []
    chosen = reward_function(load(["conf=paper", f"reward.preset={preset}", *algorithm]))
    cases = ((0, Status.CORRECT), (3584, Status.CORRECT), (3584, Status.WRONG))
    text = "<think>2 + 2</think>\\boxed{4}"
    earned = [chosen(sample(text, tokens), verdict(status)).total for tokens, status in cases]
    assert earned == pytest.approx([short, long, wrong])
    assert load(["conf=paper", f"reward.preset={preset}", "reward.format=0.7"]).reward.format == 0.7

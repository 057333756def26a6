from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Sample, Status, Verdict
from conf.catalogue import reward_presets
from conf.errors import BadInput
from conf.load import flatten, load
from conf.schema import Config, CustomRewardConfig, RewardConfig
from conf.schema.reward import formula
from conf.settings import changed
from rewards.reward import CosineScale, LengthPenalty, RewardFunction, reward_function, well_formed


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>2 + 2</think> 4", True),
        ("\n<think>\n2 + 2\n</think>\n\n\\boxed{4}", True),
        ("2 + 2</think>4", True),
        ("<think>2 + 2</think>", False),
        ("<think>2 + 2</think> \n", False),
        ("<think></think>4", False),
        ("</think>4", False),
        ("<think>2 + 2 4", False),
        ("4", False),
        ("", False),
        ("4 <think>2 + 2</think> 4", False),
        ("<think>a</think>b</think>4", False),
        ("<think>a<think>b</think>4", False),
        ("<think>a</think>4<think>", False),
    ],
)
def test_form(response: str, expected: bool) -> None:
    assert well_formed(response) is expected


def sample(text: str, tokens: int = 1) -> Sample:
    return Sample((0,) * tokens, (), text, "stop")


def verdict(status: Status = Status.CORRECT, extracted: str | None = "4") -> Verdict:
    return Verdict(float(status is Status.CORRECT), status, extracted, 1.0)


@pytest.mark.parametrize("status", list(Status))
def test_reward_is_the_weighted_sum_of_its_parts(status: Status) -> None:
    judged = verdict(status)
    earned = RewardFunction(RewardConfig(accuracy=1.0, format=0.2))(sample("<think>2 + 2</think>\\boxed{4}"), judged)
    assert earned.parts == {"accuracy": judged.score, "format": 1.0}
    assert earned.total == pytest.approx(judged.score + 0.2)
    assert earned.verdict is judged
    assert (
        RewardFunction(RewardConfig(accuracy=2.0, format=0.2))(sample("\\boxed{4}"), judged).total == 2 * judged.score
    )


@pytest.mark.parametrize("timeout", ["mask", "wrong"])
@pytest.mark.parametrize("status", list(Status))
def test_what_could_not_be_judged_is_masked_or_wrong(status: Status, timeout: str) -> None:
    earned = RewardFunction(RewardConfig(timeout=timeout))(sample("\\boxed{4}"), verdict(status))
    assert earned.masked == (timeout == "mask" and status in (Status.TIMEOUT, Status.CRASH))
    assert earned.total == float(status is Status.CORRECT)


def test_box_is_rewarded_if_it_can_be_read() -> None:
    boxing = RewardFunction(RewardConfig(accuracy=1.0, format=0.0, boxed=0.1))
    assert boxing(sample("\\boxed{5}"), verdict(Status.WRONG, "5")).total == pytest.approx(0.1)
    assert boxing(sample("5"), verdict(Status.UNPARSABLE, None)).parts["boxed"] == 0.0


@given(tokens=st.integers(0, 10_000), correct=st.booleans())
def test_cosine_is_monotonous_and_clamped(tokens: int, correct: bool) -> None:
    scale = CosineScale(4096, (1.0, 0.5), (-1.0, -0.5))
    short, long = (1.0, 0.5) if correct else (-1.0, -0.5)
    value = scale(tokens, correct)
    assert min(short, long) <= value <= max(short, long)
    assert abs(scale(tokens + 1, correct) - long) <= abs(value - long) + 1e-12
    assert scale(0, correct) == pytest.approx(short)
    assert scale(4096 + tokens, correct) == pytest.approx(long)


def test_cosine_half_way_is_the_mean_and_counts_tokens_not_characters() -> None:
    scaled = RewardFunction(RewardConfig(accuracy=0.0, format=0.0, cosine=2.0), limit=100)
    assert scaled(sample("x" * 10_000, tokens=50), verdict()).total == pytest.approx(1.5)
    assert scaled(sample("x", tokens=50), verdict(Status.UNPARSABLE)).total == pytest.approx(-1.5)


def test_long_responses_lose_up_to_one() -> None:
    config = Config()
    assert reward_function(config).penalty is None
    config = changed(
        config, {"rollout.max_response_tokens": 20_480, "algorithm.overlong_buffer": 0.2, "reward.format": 0.0}
    )
    chosen = reward_function(config)
    assert chosen.penalty == LengthPenalty(20_480, 4096.0)
    lost = [chosen.penalty(tokens) for tokens in (1, 16_384, 17_408, 20_480, 30_000)]
    assert lost == pytest.approx([0.0, 0.0, 0.25, 1.0, 1.0])
    earned = chosen(sample("\\boxed{4}", tokens=17_408), verdict())
    assert earned.total == pytest.approx(0.75)
    assert earned.parts["overlong"] == 0.25


def test_a_users_parts_are_weighed_and_named() -> None:
    parts = [CustomRewardConfig("mine.rewards:brevity", 0.5), CustomRewardConfig("mine.rewards:tone", -1.0)]
    earned = RewardFunction(RewardConfig(custom=parts))(sample("\\boxed{4}"), verdict(), {"brevity": 1.0, "tone": 0.25})
    assert earned.total == pytest.approx(1.0 + 0.5 - 0.25)
    assert (earned.parts["brevity"], earned.parts["tone"]) == (1.0, 0.25)


@pytest.mark.parametrize("timeout", ["mask", "wrong"])
def test_a_users_part_that_fails_is_masked_or_wrong_and_leaves_the_verdict(timeout: str) -> None:
    config = RewardConfig(format=0.0, timeout=timeout, custom=[CustomRewardConfig("mine.rewards:tone", 1.0)])
    earned = RewardFunction(config)(sample("\\boxed{4}"), verdict(), {"tone": 0.0}, Status.CRASH)
    assert (earned.total, earned.status, earned.masked) == (0.0, Status.CRASH, timeout == "mask")
    assert earned.verdict == verdict()


def test_formula_says_what_a_sample_earns() -> None:
    config = load(["conf=quickstart", "reward.custom=[{function: 'mine:tone', weight: -0.5}]"])
    config = changed(config, {"algorithm.overlong_buffer": 0.1})
    assert formula(flatten(asdict(config))).endswith(" − 0.5 · tone − 1 · overlong")
    assert formula({"reward.accuracy": 1.0, "reward.format": 0.2, "reward.boxed": 0.0}) == "1 · accuracy + 0.2 · format"


@pytest.mark.parametrize(
    "setting",
    ["reward.accuracy=1e308", "reward.cosine_wrong=[-1e308,0]", "reward.custom=[{function: 'a:b', weight: -1e308}]"],
)
def test_absurd_weights_are_refused(setting: str) -> None:
    with pytest.raises(BadInput, match=setting.partition("=")[0]):
        load(["conf=quickstart", setting])


def test_presets_spell_out_the_same_keys_and_are_complete() -> None:
    between = ["accuracy", "format", "boxed", "cosine", "cosine_correct", "cosine_wrong", "after_thinking"]
    assert all(list(preset) == between for preset in reward_presets().values())
    assert set(reward_presets()) == {"paper", "open_rs", "tina", "dapo"}


@pytest.mark.parametrize(
    ("preset", "short", "long", "wrong"),
    [("paper", 1.2, 1.2, 0.2), ("open_rs", 3.0, 2.0, 0.0), ("tina", 3.0, 3.0, 1.0), ("dapo", 2.0, 1.0, -1.0)],
)
def test_presets(preset: str, short: float, long: float, wrong: float) -> None:
    """Well-formed responses: right and short, right at the limit, wrong at the limit."""
    algorithm = ["algorithm.preset=dapo"] if preset == "dapo" else []
    chosen = reward_function(load(["conf=paper", f"reward.preset={preset}", *algorithm]))
    text = "<think>2 + 2</think>\\boxed{4}"
    earned = [
        chosen(sample(text, tokens), verdict(status)).total
        for tokens, status in ((0, Status.CORRECT), (3584, Status.CORRECT), (3584, Status.WRONG))
    ]
    assert earned == pytest.approx([short, long, wrong])
    assert load(["conf=paper", f"reward.preset={preset}", "reward.format=0.7"]).reward.format == 0.7

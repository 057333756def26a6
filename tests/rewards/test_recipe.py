import pytest

from actors.messages import Status, Verdict
from conf.schema import Config, RewardConfig
from rewards.recipe import LengthPenalty, length_penalty, reward, well_formed


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


@pytest.mark.parametrize("status", list(Status))
def test_reward_is_the_weighted_sum_of_its_parts(status: Status) -> None:
    score = float(status is Status.CORRECT)
    verdict = Verdict(score, status, "4", 1.0)
    earned = reward("<think>2 + 2</think>\\boxed{4}", verdict, RewardConfig(accuracy=1.0, format=0.2))
    assert earned.parts == {"accuracy": score, "format": 1.0}
    assert earned.total == pytest.approx(score + 0.2)
    assert earned.verdict is verdict
    assert reward("\\boxed{4}", verdict, RewardConfig(accuracy=2.0, format=0.2)).total == 2 * score


def test_long_responses_lose_up_to_one() -> None:
    config = Config()
    assert length_penalty(config) is None
    config.rollout.max_response_tokens, config.algorithm.overlong_buffer = 20_480, 0.2
    penalty = length_penalty(config)
    assert penalty == LengthPenalty(20_480, 4096.0)
    lost = [penalty(tokens) for tokens in (1, 16_384, 17_408, 20_480, 30_000)]
    assert lost == pytest.approx([0.0, 0.0, 0.25, 1.0, 1.0])
    earned = reward("\\boxed{4}", Verdict(1.0, Status.CORRECT, "4", 1.0), RewardConfig(format=0.0), lost[2])
    assert earned.total == pytest.approx(0.75)
    assert earned.parts["overlong"] == 0.25

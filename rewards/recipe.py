"""What a verdict and a form earn: a weighted sum of named parts."""

from actors.messages import Reward, Verdict
from conf.schema import RewardConfig

OPEN, CLOSE = "<think>", "</think>"


def well_formed(response: str) -> bool:
    """Whether a response is `<think>…</think>` and then an answer, neither of them empty.

    The opening tag may be missing, since some chat templates put it into the prompt. Each tag comes at most once.
    """
    thought, close, answer = response.partition(CLOSE)
    thought = thought.strip().removeprefix(OPEN)
    return bool(close and thought.strip() and answer.strip()) and not any(
        tag in part for tag in (OPEN, CLOSE) for part in (thought, answer)
    )


def reward(response: str, verdict: Verdict, config: RewardConfig) -> Reward:
    """The reward of one response: `accuracy` is the verdict's score, `format` is 1 for a well-formed response."""
    parts = {"accuracy": verdict.score, "format": float(well_formed(response))}
    total = config.accuracy * parts["accuracy"] + config.format * parts["format"]
    return Reward(total, parts, verdict)

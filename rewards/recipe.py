"""What a verdict and a form earn: a weighted sum of named parts."""

from dataclasses import dataclass

from actors.messages import Reward, Verdict
from conf.schema import Config, RewardConfig

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


@dataclass(frozen=True)
class LengthPenalty:
    """The soft overlong punishment of DAPO (arXiv 2503.14476, eq. 13), as what a reward loses: nothing up to
    limit − buffer tokens, rising from there to 1 at the limit and beyond. limit, buffer: tokens, buffer above 0.
    """

    limit: int
    buffer: float

    def __call__(self, tokens: int) -> float:
        return min(max((tokens - (self.limit - self.buffer)) / self.buffer, 0.0), 1.0)


def length_penalty(config: Config) -> LengthPenalty | None:
    """What `algorithm.overlong_buffer` asks for."""
    limit, share = config.rollout.max_response_tokens, config.algorithm.overlong_buffer
    return LengthPenalty(limit, share * limit) if share else None


def reward(response: str, verdict: Verdict, config: RewardConfig, overlong: float | None = None) -> Reward:
    """The reward of one response: `accuracy` is the verdict's score, `format` is 1 for a well-formed response, and
    `overlong` is a LengthPenalty, if there is one; it is taken off.
    """
    parts = {"accuracy": verdict.score, "format": float(well_formed(response))}
    total = config.accuracy * parts["accuracy"] + config.format * parts["format"]
    if overlong is not None:
        parts["overlong"] = overlong
        total -= overlong
    return Reward(total, parts, verdict)

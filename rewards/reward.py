"""What a verdict and a form earn: a weighted sum of named parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi

from actors.messages import Reward, Sample, Verdict
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


@dataclass(frozen=True)
class CosineScale:
    """Length scaling of accuracy (Yeo et al., arXiv 2502.03373): half a cosine from the value at no tokens to the value
    at `limit` and beyond, for correct answers and for others.
    """

    limit: int
    correct: tuple[float, float]
    wrong: tuple[float, float]

    def __call__(self, tokens: int, correct: bool) -> float:
        short, long = self.correct if correct else self.wrong
        progress = min(tokens / self.limit, 1.0)
        return long + (short - long) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True)
class Recipe:
    """How samples are rewarded. config: weights and rules. limit: rollout.max_response_tokens, which parts on length
    are scaled by. penalty: soft overlong, if any.
    """

    config: RewardConfig
    limit: int = 1
    penalty: LengthPenalty | None = None

    def reward(self, sample: Sample, verdict: Verdict, custom: Mapping[str, float] | None = None) -> Reward:
        """The reward of one sample: a weighted sum of parts, each unweighted in `parts`.

        accuracy: the verdict's score. format: 1 for a well-formed response. boxed: 1 if it has a box that can be read.
        cosine: a CosineScale. overlong: the penalty, which is taken off. custom: the user's parts, by name. Accuracy
        and format are always there, the others if they count.
        """
        config, tokens = self.config, len(sample.token_ids)
        parts = {"accuracy": verdict.score, "format": float(well_formed(sample.text))}
        weights = {"accuracy": config.accuracy, "format": config.format}
        if config.boxed:
            parts["boxed"], weights["boxed"] = float(verdict.extracted is not None), config.boxed
        if config.cosine:
            correct, wrong = tuple(config.cosine_correct), tuple(config.cosine_wrong)
            scale = CosineScale(self.limit, correct, wrong)  # type: ignore[arg-type]
            parts["cosine"], weights["cosine"] = scale(tokens, verdict.score == 1.0), config.cosine
        if self.penalty is not None:
            parts["overlong"], weights["overlong"] = self.penalty(tokens), -1.0
        for part in config.custom:
            parts[part.name], weights[part.name] = (custom or {}).get(part.name, 0.0), part.weight
        total = sum(weights[name] * value for name, value in parts.items())
        return Reward(total, parts, verdict, counted=config.timeout == "wrong")


def recipe(config: Config) -> Recipe:
    """The recipe of a run."""
    limit, share = config.rollout.max_response_tokens, config.algorithm.overlong_buffer
    return Recipe(config.reward, limit, LengthPenalty(limit, share * limit) if share else None)

"""The reward of a sample: a weighted sum of named parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi

from microbudget_rl.actors.messages import Complaint, Reward, Sample, Status, Verdict
from microbudget_rl.conf.schema import Config, RewardConfig
from microbudget_rl.rewards.verify.text.spelling import plain

OPEN, CLOSE = "<think>", "</think>"


def well_formed(response: str) -> bool:
    """Whether a response is `<think>…</think>` followed by an answer, neither empty, with each tag at most once.

    The opening tag may be missing, because some chat templates put it into the prompt.
    """
    thought, close, answer = response.partition(CLOSE)
    thought = thought.strip().removeprefix(OPEN)
    return bool(close and thought.strip() and answer.strip()) and not any(
        tag in part for tag in (OPEN, CLOSE) for part in (thought, answer)
    )


def overlong(tokens: int, limit: int, buffer: float) -> float:
    """Return DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), which is subtracted from the reward.

    It is 0 up to limit − buffer tokens and rises linearly to 1 at the limit. buffer is above 0.
    """
    return min(max((tokens - (limit - buffer)) / buffer, 0.0), 1.0)


def cosine(tokens: int, limit: int, short: float, long: float) -> float:
    """Return the accuracy reward scaled by length (Yeo et al., arXiv 2502.03373).

    Half a cosine from the value `short` at no tokens to the value `long` at `limit` tokens and beyond.
    """
    return long + (short - long) * (1 + cos(pi * min(tokens / limit, 1.0))) / 2


@dataclass(frozen=True)
class RewardFunction:
    """Rewards samples.

    config: weights and rules
    limit: longest response, tokens; parts that depend on length are scaled by it
    buffer: tokens before the limit over which the overlong punishment rises; 0 for none
    """

    config: RewardConfig
    limit: int = 1
    buffer: float = 0.0

    def __call__(
        self,
        sample: Sample,
        verdict: Verdict,
        custom: Mapping[str, float] | None = None,
        failure: Status | None = None,
        complaints: tuple[Complaint, ...] = (),
    ) -> Reward:
        """Reward one sample. Its `parts` are unweighted: accuracy and format always, the others if they have a weight.

        accuracy: the verdict's score, 0 after a `failure` of a user's part
        format: 1 for a well-formed response
        boxed: 1 for a box that can be read and is not empty
        cosine, overlong: the functions above; overlong is subtracted
        custom: the user's parts, by name
        """
        config, tokens = self.config, len(sample.token_ids)
        accuracy = 0.0 if failure else verdict.score
        weighted = {
            "accuracy": (accuracy, config.accuracy),
            "format": (float(well_formed(sample.text)), config.format),
        }
        if config.boxed:
            weighted["boxed"] = float(bool(plain(verdict.extracted or ""))), config.boxed
        if config.cosine:
            short, long = config.cosine_correct if accuracy == 1.0 else config.cosine_wrong
            weighted["cosine"] = cosine(tokens, self.limit, short, long), config.cosine
        if self.buffer:
            weighted["overlong"] = overlong(tokens, self.limit, self.buffer), -1.0
        for part in config.custom:
            weighted[part.name] = (custom or {}).get(part.name, 0.0), part.weight
        parts = {name: value for name, (value, _) in weighted.items()}
        total = sum(weight * value for value, weight in weighted.values())
        return Reward(total, parts, verdict, config.timeout == "wrong", failure, complaints)


def reward_function(config: Config) -> RewardFunction:
    """Return the reward function of a run."""
    limit = config.rollout.max_response_tokens
    return RewardFunction(config.reward, limit, config.algorithm.overlong_buffer * limit)

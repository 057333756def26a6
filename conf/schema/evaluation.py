"""Held-out evaluation: before, after and during training."""

from pydantic.dataclasses import dataclass

from conf.schema.rollout import LONGEST
from conf.settings import DECLARED, setting


@dataclass(config=DECLARED, frozen=True)
class EvalConfig:
    """Held-out evaluation before and after training."""

    problems: int = setting(128, "our choice: at least 100 are needed to show a difference", ge=0, le=10**6)
    """Number of held-out problems, or all where there are fewer; 0 for no evaluation."""
    share: float = setting(0.5, "our choice: at least half of a small source is to learn from", gt=0, le=1)
    """Without data.eval_source, the largest fraction of the source's problems that is held out."""
    n: int = setting(2, "our choice", ge=1, le=65536)
    """Samples per problem; evaluate.py has its own n."""
    temperature: float = setting(0.6, "the convention since DeepSeek-R1 (arXiv 2501.12948)", ge=0, le=2)
    """Temperature of these samples."""
    top_p: float = setting(0.95, "DeepSeek-R1, as the temperature", ge=0.01, le=1)
    """Nucleus sampling (top-p) of these samples: the probability of the likeliest tokens to sample from."""
    max_response_tokens: int | None = setting(None, "the rollouts' limit", ge=1, le=LONGEST)
    """Longest response, tokens."""


@dataclass(config=DECLARED, frozen=True)
class ValidationConfig:
    """Held-out accuracy during training, with one sample per problem and the settings of `eval`. `checkpoints/best` has
    the version with the best accuracy. With so few problems, only large differences mean anything.
    """

    every: int = setting(0, "our choice: a small budget is for training", ge=0, resumable=True)
    """Updates between validations, 0 for none; the learner waits for them."""
    problems: int = setting(64, "our choice", ge=1)
    """Number of held-out problems to use, always the first ones."""
    share: float = setting(0.05, "our choice: a small budget is for training", ge=0, le=1, resumable=True)
    """Largest fraction of the time spent that validations may take. A validation that would exceed it is skipped,
    unless run.deterministic."""

"""Held-out evaluation: before and after training, and while it goes on."""

from pydantic.dataclasses import dataclass

from conf.schema.rollout import LONGEST
from conf.settings import DECLARED, setting


@dataclass(config=DECLARED)
class EvalConfig:
    """Held-out evaluation before and after training."""

    problems: int = setting(128, "our choice", ge=0, le=10**6)
    """Held-out problems, as far as there are so many; 0 for no evaluation."""
    share: float = setting(0.5, "our choice: at least half of a small source is to learn from", gt=0, le=1)
    """Without data.eval_source, the share of the source's problems that may be held out at most."""
    n: int = setting(2, "our choice", ge=1, le=65536)
    """Samples of each problem; evaluate.py has its own n."""
    temperature: float = setting(0.6, "the convention since DeepSeek-R1 (arXiv 2501.12948)", ge=0, le=2)
    """Temperature of these samples."""
    top_p: float = setting(0.95, "DeepSeek-R1, as the temperature", ge=0.01, le=1)
    """Smallest share of the distribution that these samples are drawn from."""
    max_response_tokens: int | None = setting(None, "the rollouts' limit", ge=1, le=LONGEST)
    """Longest response, tokens."""


@dataclass(config=DECLARED)
class ValidationConfig:
    """Held-out accuracy while training, one sample of each problem with the settings of `eval`. `checkpoints/best` is
    the version that did best. So few problems tell large differences only.
    """

    every: int = setting(0, "our choice: a small budget is for training", ge=0, resumable=True)
    """Updates between validations, 0 for none; the learner waits for them."""
    problems: int = setting(64, "our choice", ge=1)
    """How many of the held-out problems, always the first ones."""
    share: float = setting(0.05, "our choice", ge=0, le=1, resumable=True)
    """Share of the time spent that validations may take; one that would exceed it is left out, unless
    run.deterministic."""

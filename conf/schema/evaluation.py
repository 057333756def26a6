"""Held-out evaluation: before, after and during training."""

from pydantic.dataclasses import dataclass

from conf.schema.rollout import LONGEST
from conf.settings import DECLARED, setting


@dataclass(config=DECLARED, frozen=True)
class EvalConfig:
    """Held-out evaluation before and after training."""

    problems: int = setting(128, "our choice: at least 100 are needed to show a difference", ge=0, le=10**6)
    """Number of held-out problems that are reported, or all where there are fewer; 0 for no evaluation."""
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
    """Validations choose the run's result among its versions, on held-out problems that nothing reports, with one
    sample per problem and the settings of `eval`. A version's score is the mean of its validation and the one before,
    the version with the highest score is `checkpoints/best`, and the final evaluation measures it. In simulation it
    comes closer to the best version than the highest validation or any rule of one standard error (docs: checkpoints).
    """

    every: int = setting(0, "our choice: a small budget is for training", ge=0, resumable=True)
    """Updates between validations, 0 for none: the result is then the last version. The learner waits for them. The
    last version is validated too. A resume cannot change it to or from 0."""
    problems: int = setting(64, "our choice", ge=1)
    """Number of held-out problems that choose, after the first `eval.problems`, which report. Where fewer are held out
    than both, they are split in proportion, at least one each."""
    share: float = setting(0.05, "our choice: a small budget is for training", ge=0, le=1, resumable=True)
    """Largest fraction of the time spent that validations may take. A validation that would exceed it is skipped,
    unless it is the last version's, or run.deterministic."""
    patience: int = setting(0, "our choice: a later rise is not ruled out", ge=0, resumable=True)
    """Validations without a higher score after which the run ends, with the rest of its budget unspent; 0 for never."""

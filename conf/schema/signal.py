"""The doctor's question whether a model can learn from data."""

from pydantic.dataclasses import dataclass

from conf.schema.run import YEAR_H
from conf.settings import DECLARED, setting


@dataclass(config=DECLARED, frozen=True)
class SignalConfig:
    """What `launch/doctor.py measure=signal` samples. It uses training problems, and samples them as the run would:
    temperature, limits, prompt and reward are the recipe's.
    """

    minutes: float = setting(10.0, "our choice: a hundredth of a day", gt=0, le=60 * YEAR_H)
    """Most minutes of sampling. It ends sooner once the verdict is certain. The engine's start is not counted."""
    problems: int = setting(150, "our choice: they show a share of 10 % within 9 points", ge=6)
    """Most training problems to sample."""
    samples: int = setting(16, "the paper: pass@16", ge=2, le=1024)
    """Samples per problem, in whole groups of rollout.samples_per_problem."""

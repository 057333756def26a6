"""Held-out evaluation: before, after and during training."""

import re
from dataclasses import replace
from typing import Any

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.catalogue import HELD_OUT, Benchmark, find_benchmark
from microbudget_rl.conf.schema.rollout import LONGEST
from microbudget_rl.conf.settings import DECLARED, Rule, setting

UNKNOWN = 500
"""Problems of a benchmark, for plans, whose number is not known, our choice: as many as math500 has."""

TAKEN = (HELD_OUT, "base", "warm", "final", "last")
NAME = Rule(
    lambda text: re.fullmatch(r"([\w+-][\w.+-]{0,49})?", text) is not None and text not in TAKEN,
    f"use at most 50 letters, digits, dots, dashes and plus signs, and none of {', '.join(TAKEN)}",
)


@dataclass(config=DECLARED, frozen=True)
class BenchmarkConfig:
    """A benchmark that a run evaluates its policies on, see EvalConfig.benchmarks."""

    source: str = setting("", "none: it must be given")
    n: int | None = setting(None, "eval.n", ge=1, le=65536)
    limit: int | None = setting(None, "all", ge=1)
    name: str = setting("", "the source's", rule=NAME)


@dataclass(config=DECLARED, frozen=True)
class EvalConfig:
    """Held-out evaluation before and after training."""

    problems: int = setting(
        128, "our choice: a difference needs at least 100 to show", ge=0, le=10**6, affects="held_out"
    )
    """Number of held-out problems to report on; if there are fewer, all. 0 for no evaluation."""
    share: float = setting(
        0.25,
        "our choice: most of a small source is for training",
        gt=0,
        le=1,
        follows="data.source",
        affects="split",
    )
    """Without data.eval_source: largest fraction of the source's problems that is held out."""
    n: int = setting(2, "our choice", ge=1, le=65536, affects="result")
    """Samples per problem. evaluate.py has its own n."""
    temperature: float = setting(0.6, "the convention since DeepSeek-R1 (arXiv 2501.12948)", ge=0, le=2)
    """Temperature of these samples."""
    top_p: float = setting(0.95, "as in DeepSeek-R1", ge=0.01, le=1)
    """Nucleus sampling (top-p) of these samples: probability of the likeliest tokens to sample from."""
    max_response_tokens: int | None = setting(None, "our choice", ge=1, le=LONGEST)
    """Longest response, tokens. Null: rollout.max_response_tokens."""
    benchmarks: list[BenchmarkConfig] = setting(
        [], "our choice: they take time from training", affects="result training"
    )
    """Further benchmarks for base model and result, such as {source: aime24, n: 8, limit: 30, name: aime}. source: as
    in `benchmarks` of evaluate.py. n: samples per problem (null: eval.n). limit: use only the first problems (null:
    all). name: replaces the source's. They never select the result. data.contamination applies to training problems
    that nearly duplicate theirs."""

    @property
    def resolved_benchmarks(self) -> list[Benchmark]:
        """The entries of `benchmarks`. Raises BadInput for an unknown source."""
        resolved = []
        for number, entry in enumerate(self.benchmarks):
            known = find_benchmark(entry.source, f"{(key := f'eval.benchmarks[{number}]')}.source")
            asked: dict[str, Any] = {
                "n": entry.n or self.n,
                "limit": entry.limit,
                "key": key,
                "name": entry.name or known.name,
            }
            resolved.append(replace(known, problems=known.problems or entry.limit or UNKNOWN, **asked))
        return resolved


@dataclass(config=DECLARED, frozen=True)
class ValidationConfig:
    """Validations select the run's result among its versions. They use validation problems, which no figure reports,
    one sample per problem, and otherwise the settings of `eval`. A version's score is the mean of its validation and
    the one before. The version with the highest score is `checkpoints/best`, and the final evaluation measures it.
    """

    every: int = setting(0, "our choice: a small budget is for training", ge=0, resumable=True)
    """Updates between validations. 0 for none: the result is then the last version. The learner waits for validations.
    The last version is validated too. A resume cannot change this to or from 0."""
    problems: int = setting(64, "our choice", ge=1, affects="held_out")
    """Number of validation problems. They are held out after the `eval.problems` that are reported. If there are too
    few for both, they are split in proportion, at least one each."""
    share: float = setting(0.05, "our choice: a small budget is for training", ge=0, le=1, resumable=True)
    """Largest fraction of the elapsed time for validations. A validation that would exceed it is skipped, except for
    the last version and with run.deterministic."""
    patience: int = setting(0, "our choice: the score may rise again later", ge=0, resumable=True)
    """Number of validations without a higher score after which the run ends and leaves the rest of its budget unused; 0
    for never."""

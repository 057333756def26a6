"""Loads the problems of a benchmark under a recipe's template."""

from dataclasses import dataclass, replace
from typing import Any

from actors.messages import LeftOut, Problem
from conf.benchmarks import HELD_OUT, Benchmark
from conf.errors import BadInput
from conf.schema import Config
from rewards.problems import sources
from rewards.problems.chat import check_chat
from rewards.problems.loading import EVAL_SEED, counts, in_words, load, usable_problems
from rewards.problems.rows import distinct_pairs


@dataclass(frozen=True)
class BenchmarkProblems:
    """A benchmark's problems as the model will see them.

    dropped: number of filtered rows, by reason
    digest: of the held-out problems only; see `ProblemSet`
    """

    benchmark: Benchmark
    problems: tuple[Problem, ...]
    dropped: dict[str, int]
    digest: str = ""


def load_benchmark(benchmark: Benchmark, config: Config, tokenizer: Any) -> BenchmarkProblems:
    """Load the first `limit` problems of a benchmark, by id. Raises BadInput for a source without a usable problem."""
    if benchmark.source == HELD_OUT:
        known = load(config, tokenizer)
        if not known.heldout:
            raise BadInput(f"benchmarks={HELD_OUT}: eval.problems={config.eval.problems} holds out none; raise it")
        dropped = counts([row for row in known.left_out if row.source == "eval_source"])
        return BenchmarkProblems(benchmark, known.heldout[: config.limit], dropped, known.digest)
    check_chat(config, tokenizer)
    data = replace(config.data, problem_pattern="", scan=None, size=config.limit)
    rows = sources.read("benchmarks", benchmark.source, data, EVAL_SEED)
    columns = rows[0].fields if rows else {}
    data = replace(
        data,
        problem_field=benchmark.problem_field or (data.problem_field if data.problem_field in columns else ""),
        answer_field=benchmark.answer_field or (data.answer_field if data.answer_field in columns else ""),
    )
    left_out: list[LeftOut] = []
    pairs = distinct_pairs(rows, "benchmarks", data, left_out)
    problems = usable_problems("benchmarks", pairs, config, tokenizer, left_out)[: config.limit]
    if not problems:
        raise BadInput(f"benchmarks={benchmark.source}: it has no usable problem ({in_words(left_out)})")
    return BenchmarkProblems(benchmark, tuple(problems), counts(left_out))

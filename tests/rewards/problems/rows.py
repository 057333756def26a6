"""Rows of problems, files of every type that hold them, and their loading."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import Problem, ProblemSet
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.rewards.problems.loading import load_problems
from tests.json_lines import write_rows

Rows = list[dict[str, Any]]
ALL = {"eval.problems": 0, "learner.problems_per_update": 1}
"""Settings under which every usable row is a training problem."""


def problem_row(problem: Any, answer: Any) -> dict[str, Any]:
    return {"problem": problem, "answer": answer}


LONG = "A train leaves the old station at noon and reaches the harbour {} miles away after {} hours. How fast is it?"
SUMS: Rows = [problem_row(f"What is {i} + {i}?", str(2 * i)) for i in range(30)]


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], object]] = {
    "jsonl": write_rows,
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "csv": write_csv,
    "parquet": write_parquet,
}


def texts(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.prompt.split("\n")[1].removesuffix("<|im_end|>") for problem in problems}


@dataclass
class Loader:
    """Loads problems with further settings over those of `config`, which names `sums.jsonl` in the working folder."""

    config: Config
    tokenizer: Any

    def load(self, settings: dict[str, Any] | None = None, rows: Rows | None = None) -> ProblemSet:
        """Load the problems of `sums.jsonl`, after writing rows to it if there are any."""
        if rows is not None:
            write_rows(Path("sums.jsonl"), rows)
        return load_problems(changed(self.config, settings or {}), self.tokenizer)

    def refuse(self, settings: dict[str, Any], *words: str, rows: Rows | None = None) -> None:
        """Check that the problems are refused in one line with these words."""
        with pytest.raises(BadInput) as refused:
            self.load(settings, rows)
        assert "\n" not in str(refused.value)
        assert [word for word in words if word not in str(refused.value)] == []

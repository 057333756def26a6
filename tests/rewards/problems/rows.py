"""Rows of problems, and files of every type that hold them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.messages import Problem
from conf.errors import BadInput
from conf.schema import Config
from rewards.problems.loading import load

Rows = list[dict[str, Any]]
SUMS: Rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(30)]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows))


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}


def texts(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.prompt.split("\n")[1].removesuffix("<|im_end|>") for problem in problems}


def refuse(config: Config, tokenizer: Any, *words: str) -> None:
    with pytest.raises(BadInput) as refused:
        load(config, tokenizer)
    message = str(refused.value)
    assert "\n" not in message
    for word in words:
        assert word in message

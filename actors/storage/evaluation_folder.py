"""The folder of launch/evaluate.py: `evaluation.json`, `evaluation.md`, and in `samples/` a file for each policy
and benchmark, kept so that no sample is drawn twice.
"""

import json
from pathlib import Path
from typing import Any

from actors.messages import AdapterRef, Group, Problem, Status
from actors.storage.contents import DrawnSample, Evaluated
from actors.storage.files import append_row, drop_half_line, read_json, read_rows, replace_text
from actors.storage.run_folder import sample_row
from conf.errors import BadInput

Row = dict[str, Any]

DOCUMENT = "evaluation.json"

SCORED = ("problem", "sample", "status", "extracted", "tokens", "finish_reason", "format", "seconds")
"""Fields of a sample that scores are made from; the rest stays in the file."""


class EvaluationFolder:
    """Reads and writes what an evaluation leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def document(self) -> Row | None:
        """Return evaluation.json: status, protocol, benchmarks, versions."""
        return read_json(self.path / DOCUMENT, Evaluated)

    @property
    def has_samples(self) -> bool:
        return any(self._sample_files())

    def recover(self) -> None:
        """Drop what a dead process has left half written."""
        for file in self._sample_files():
            drop_half_line(file)

    def write(self, document: Row, markdown: str) -> None:
        """Write the results, for programs and for people."""
        replace_text(self.path / "evaluation.md", markdown)
        replace_text(self.path / DOCUMENT, json.dumps(document, indent=2) + "\n")

    def sample_file(
        self, benchmark: str, problems: tuple[Problem, ...], n: int, adapter: AdapterRef | None
    ) -> "SampleFile":
        """Return the file of a policy's samples on a benchmark, with those that it has so far."""
        policy = "adapter" if adapter else "base"
        return SampleFile(self.path / "samples" / f"{benchmark}-{policy}.jsonl", problems, n, adapter)

    def _sample_files(self) -> list[Path]:
        return list((self.path / "samples").glob("*.jsonl"))


class SampleFile:
    """Samples 0 … n - 1 of each problem: a file with a line for each, in the order in which they came.

    adapter: of the policy, None for the base model.
    drawn, correct: how many samples there are, and are right.
    """

    def __init__(self, file: Path, problems: tuple[Problem, ...], n: int, adapter: AdapterRef | None) -> None:
        """Read what an earlier process left. Raises BadInput if that is damaged or about other problems."""
        self.problems = problems
        self.n = n
        self.adapter = adapter
        self.drawn = self.correct = 0
        self._file = file
        self._rows: dict[tuple[str, int], Row] = {}
        known = {problem.id: problem for problem in problems}
        for number, row in enumerate(read_rows(file, DrawnSample), start=1):
            problem = known.get(row["problem"])
            same = problem is None or (row["prompt"], row["gold"]) == (problem.prompt, problem.gold)
            if same and problem is not None and row["sample"] < n:
                self._keep(row)
            if not same:
                raise BadInput(
                    f"{file}: line {number} has another prompt or answer of problem {row['problem']} than now: restore "
                    "the data, or give run.name=OTHER or run.overwrite=true"
                )

    def missing(self, number: int) -> list[int]:
        """Return the indices of the problems whose sample of this number is still to be drawn."""
        return [index for index, problem in enumerate(self.problems) if (problem.id, number) not in self._rows]

    @property
    def complete(self) -> bool:
        return self.drawn == self.n * len(self.problems)

    @property
    def rounds(self) -> int:
        """How many samples every problem has: what is left is unbiased wherever the drawing ended."""
        return next((number for number in range(self.n) if self.missing(number)), self.n)

    def samples(self, rounds: int) -> list[list[Row]]:
        """Return the first so many samples of each problem."""
        return [[self._rows[problem.id, number] for number in range(rounds)] for problem in self.problems]

    @property
    def cost(self) -> dict[str, float]:
        """Tokens and seconds of all samples, also those of a round that is not complete."""
        return {name: sum(row[name] for row in self._rows.values()) for name in ("tokens", "seconds")}

    def append(self, number: int, group: Group, seconds: float) -> None:
        """Keep sample `number` of a problem. seconds: of the engine's time, its share."""
        row = {
            **sample_row(group, 0),
            "sample": number,
            "format": group.rewards[0].parts["format"],
            "seconds": round(seconds, 4),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        append_row(self._file, row)
        self._keep(row)

    def _keep(self, row: Row) -> None:
        self._rows[row["problem"], row["sample"]] = {key: row[key] for key in SCORED}
        self.drawn += 1
        self.correct += row["status"] == Status.CORRECT

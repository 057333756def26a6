"""The folder of launch/evaluate.py: `evaluation.json`, `evaluation.md`, and `samples/` by policy and benchmark."""

from collections import deque
from pathlib import Path

from actors.evaluation.protocol import check_continues
from actors.messages import AdapterRef, Group, Problem
from actors.models.adapters import model_names
from actors.storage.documents import BenchmarkResult, EvaluatedSample, EvaluationDocument, Protocol
from actors.storage.files import append_row, drop_half_line, read_document, read_rows, replace_text, write_document
from actors.storage.folders import empty, mark
from actors.storage.layout import EVALUATION
from actors.storage.run_folder import sample_row
from actors.storage.run_record import RunRecord
from actors.storage.writer import Writer
from conf.errors import BadInput
from conf.load import recorded
from conf.schema import CommandLine, Config

DOCUMENT = "evaluation.json"


class EvaluationFolder:
    """Reads and writes the files of an evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: CommandLine, run: Path | None) -> "EvaluationFolder":
        """Return the folder of an evaluation. run: folder of the run that the adapter comes from.

        Raises BadInput if it would be in the folder of another run or model, whose report would then show the results.
        """
        home = RunRecord(Path(config.run.folder) / config.run.name)
        if known := recorded(home.path):
            if config.adapter and home.path.resolve() != run:
                raise BadInput(f"adapter={config.adapter}: is not from the run in {home.path}; give run.name=OTHER")
            model = known.model.path
            if not model_names(model) & model_names(config.model.path):
                raise BadInput(f"model.path={config.model.path}: {home.path} belongs to {model}; give run.name=OTHER")
        return cls(home.evaluation_folder)

    def begin(self, config: Config, protocol: Protocol) -> list[BenchmarkResult]:
        """Clean up after an earlier process. Return the results so far.

        Raises BadInput if its samples have another protocol, or if run.overwrite would delete somebody else's file.
        """
        if config.run.overwrite and (other := empty(self.path.resolve(), EVALUATION)) is not None:
            raise BadInput(f"{other} is not the file of an evaluation: move it away, or give run.name=OTHER")
        mark(self.path, EVALUATION.kind)
        files = list((self.path / "samples").glob("*.jsonl"))
        for file in files:
            drop_half_line(file)
        if (document := self.document()) is None:
            return []
        if document.benchmarks or files:
            evaluation = f"the evaluation {config.run.name!r} in {self.path}"
            check_continues(protocol, document.protocol, evaluation)
        return document.benchmarks

    def document(self) -> EvaluationDocument | None:
        """Return evaluation.json."""
        return read_document(self.path / DOCUMENT, EvaluationDocument)

    def write(self, document: EvaluationDocument, markdown: str) -> None:
        replace_text(self.path / "evaluation.md", markdown)
        write_document(self.path / DOCUMENT, document)


class SampleFile:
    """Samples 0 … n - 1 of each problem, one per line, in the order of their completion.

    adapter: the policy's, None for the base model.
    """

    def __init__(self, file: Path, problems: tuple[Problem, ...], n: int, adapter: AdapterRef | None) -> None:
        """Read the samples of an earlier process. Raises BadInput if they are damaged or belong to other problems."""
        self.problems = problems
        self.n = n
        self.adapter = adapter
        self._file = file
        self._writer = Writer()
        self._unwritten: deque[EvaluatedSample] = deque()
        self._rows: dict[tuple[str, int], EvaluatedSample] = {}
        known = {problem.id: problem for problem in problems}
        for number, row in enumerate(read_rows(file, EvaluatedSample), start=1):
            problem = known.get(row.problem)
            if problem and (row.prompt, row.gold) != (problem.prompt, problem.gold):
                raise BadInput(
                    f"{file}: line {number} has another prompt or answer of problem {row.problem} than now: restore "
                    "the data, or give run.name=OTHER or run.overwrite=true"
                )
            if problem and row.sample < n:
                self._keep(row)

    def missing(self, number: int) -> list[int]:
        """Return the indices of the problems that lack the sample of this number."""
        return [index for index, problem in enumerate(self.problems) if (problem.id, number) not in self._rows]

    @property
    def sampled(self) -> int:
        """Number of samples so far, of all problems."""
        return len(self._rows)

    @property
    def rounds(self) -> int:
        """Number of samples that every problem has."""
        return next((number for number in range(self.n) if self.missing(number)), self.n)

    def samples(self, rounds: int) -> list[list[EvaluatedSample]]:
        """Return the first `rounds` samples of each problem."""
        return [[self._rows[problem.id, number] for number in range(rounds)] for problem in self.problems]

    @property
    def cost(self) -> dict[str, float]:
        """Tokens and seconds of all samples, incomplete rounds included."""
        rows = self._rows.values()
        return {"tokens": sum(row.tokens for row in rows), "seconds": sum(row.seconds for row in rows)}

    def append(self, number: int, group: Group, seconds: float) -> None:
        """Keep sample `number` of a problem, and have it written. seconds: since the sample before, of any file."""
        extra = {"sample": number, "format": group.rewards[0].parts["format"], "seconds": round(seconds, 4)}
        row = EvaluatedSample.model_validate(sample_row(group, 0).content | extra)
        self._unwritten.append(row)
        self._writer.put(self._write)  # with all that have come by then
        self._keep(row)

    async def flush(self) -> None:
        """Return once all samples are on disk. Raises the error of a write that has failed."""
        await self._writer.in_turn(self._writer.check)

    def _write(self) -> None:
        if rows := [self._unwritten.popleft() for _ in range(len(self._unwritten))]:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            append_row(self._file, *rows)

    def _keep(self, row: EvaluatedSample) -> None:
        """Keep a sample without the texts, which no score needs and which stay in the file."""
        self._rows[row.problem, row.sample] = row.model_copy(update={"prompt": "", "response": ""})

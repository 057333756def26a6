"""The folder of launch/evaluate.py: `evaluation.json`, `evaluation.md`, and `samples/` by policy and benchmark."""

from collections.abc import Iterable
from pathlib import Path

from actors.evaluation.protocol import OF_ADAPTER, check_continues
from actors.models.adapters import model_names
from actors.models.files import name_on_hub
from actors.storage.documents import EvaluatedSample, EvaluationDocument, Protocol
from actors.storage.files import append_row, drop_half_line, read_document, read_rows, replace_text, write_document
from actors.storage.run_record import RunRecord
from conf.errors import BadInput
from conf.load import recorded
from conf.schema import CommandLine, Config
from conf.settings import changed


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

    def as_begun(self, config: CommandLine) -> CommandLine:
        """Return the settings with the commit of a model on the Hub that the evaluation began with."""
        known = None if config.run.overwrite else self.document()
        on_hub, _ = name_on_hub(config.model)
        if not known or not on_hub or config.model.pin or known.protocol.model != config.model.path:
            return config
        return changed(config, {"model.pin": known.protocol.model_digest or ""})

    def begin(self, config: Config, protocol: Protocol) -> None:
        """Clean up after an earlier process.

        Raises BadInput if its samples have another protocol.
        """
        files = list((self.path / "samples").glob("*.jsonl"))
        for file in files:
            drop_half_line(file)
        document = self.document()
        if document and (document.benchmarks or files):
            evaluation = f"the evaluation {config.run.name!r} in {self.path}"
            check_continues(protocol, document.protocol, evaluation)

    def take_base(self, other: Path, protocol: Protocol, benchmarks: Iterable[str]) -> None:
        """Add the base model's samples that another evaluation has. Raises BadInput for those of another protocol."""
        where, remedy = f"base={other}", "name an evaluation with the same settings, or leave base out"
        if (document := EvaluationFolder(other).document()) is None:
            raise BadInput(f"{where}: there is no evaluation.json; name the folder of an evaluation, or leave base out")
        now, then = (each.model_copy(update=dict.fromkeys(OF_ADAPTER)) for each in (protocol, document.protocol))
        check_continues(now, then, where, remedy)
        for name in benchmarks:
            own, theirs = (folder / "samples" / f"{name}-base.jsonl" for folder in (self.path, other))
            known = {(row.problem, row.sample) for row in read_rows(own, EvaluatedSample)}
            own.parent.mkdir(exist_ok=True)
            missing = (row for row in read_rows(theirs, EvaluatedSample) if (row.problem, row.sample) not in known)
            append_row(own, *missing)

    def document(self) -> EvaluationDocument | None:
        return read_document(self.path / "evaluation.json", EvaluationDocument)

    def write(self, document: EvaluationDocument, markdown: str) -> None:
        replace_text(self.path / "evaluation.md", markdown)
        write_document(self.path / "evaluation.json", document)

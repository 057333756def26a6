"""The folder of launch/evaluate.py: `evaluation.json`, `evaluation.md`, and `samples/` named as a run's.

Its protocol is everything that samples depend on, so that those of different models or settings never mix.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from microbudget_rl.actors.attempt import response_limit
from microbudget_rl.actors.models.adapters import WEIGHTS_FILE, Adapter, model_names
from microbudget_rl.actors.models.files import model_digest, name_on_hub
from microbudget_rl.actors.storage.documents import AdapterShape, EvaluatedSample, EvaluationDocument, Protocol
from microbudget_rl.actors.storage.files import (
    append_row,
    digest,
    drop_half_line,
    read_document,
    read_rows,
    replace_text,
    write_document,
)
from microbudget_rl.actors.storage.run_record import RunRecord, named, sample_file
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import recorded
from microbudget_rl.conf.schema import CommandLine, Config, affecting
from microbudget_rl.conf.settings import changed

SETTINGS = affecting("prompt", "response", "verdict")
"""Settings that samples and verdicts depend on, besides the protocol's other fields."""

OF_ADAPTER = ("adapter", "adapter_digest", "adapter_config")
"""Fields of the adapter, which may be evaluated after the base model."""


def protocol_of(config: Config, model_path: str, adapter: Adapter | None) -> Protocol:
    """Return the protocol of an evaluation with these settings."""
    shape = {name: getattr(config.lora, name) for name in ("rank", "alpha", "rslora", "target_modules")}
    known = asdict(config)
    mixture = [
        {key: value for key, value in each.items() if value and f"data.{key}" in SETTINGS}
        for each in known["data"]["mixture"]
    ]
    known["reward"]["custom"] = [part.function for part in config.reward.custom]  # no verdict depends on a weight
    return Protocol(
        model=config.model.path,
        model_digest=model_digest(model_path),
        dtype=config.model.dtype,
        adapter=str(adapter.folder) if adapter else None,
        adapter_digest=digest(adapter.folder / WEIGHTS_FILE) if adapter else None,
        adapter_config=AdapterShape(base=adapter.base, **shape) if adapter else None,
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        max_response_tokens=response_limit(config),
        seed=config.run.seed,
        settings={key: known[key.partition(".")[0]][key.partition(".")[2]] for key in SETTINGS}
        | ({"data.mixture": mixture} if any(mixture) else {}),
    )


def check_continues(
    protocol: Protocol,
    recorded: Protocol,
    evaluation: str,
    remedy: str = "go on with the same settings, or give run.name=OTHER or run.overwrite=true",
) -> None:
    """Raise BadInput if recorded samples were made by another protocol.

    An adapter may be added to the base model, and may have moved to another folder.
    """
    before, now = ({**each.content, **each.settings} for each in (recorded, protocol))
    free = ("settings", "adapter") if before.get("adapter") else ("settings", *OF_ADAPTER)
    key = next((key for key in now if key not in free and before.get(key) != now[key]), None)
    if key is None:
        return
    named = key.removesuffix("_digest")
    other = f"{now[named]} with other content" if named != key and now[named] is not None else now[named]
    raise BadInput(f"{evaluation} was begun with {named}={before.get(named)}, not {other}: {remedy}")


class EvaluationFolder:
    """Reads and writes the files of an evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: CommandLine, run: Path | None) -> "EvaluationFolder":
        """Return the folder of an evaluation. run: folder of the run that the adapter comes from.

        Raises BadInput if it would be in the folder of another run or model, whose report would then show the results.
        """
        home = RunRecord(config.run.path)
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
        """Clean up after an earlier process. Raises BadInput if its samples have another protocol."""
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
            target, source = (sample_file(folder, named("base", name)) for folder in (self.path, other))
            known = {(row.problem, row.sample) for row in read_rows(target, EvaluatedSample)}
            target.parent.mkdir(exist_ok=True)
            missing = (row for row in read_rows(source, EvaluatedSample) if (row.problem, row.sample) not in known)
            append_row(target, *missing)

    def document(self) -> EvaluationDocument | None:
        return read_document(self.path / "evaluation.json", EvaluationDocument)

    def write(self, document: EvaluationDocument, markdown: str) -> None:
        replace_text(self.path / "evaluation.md", markdown)
        write_document(self.path / "evaluation.json", document)

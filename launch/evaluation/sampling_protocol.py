"""What the samples of an evaluation depend on, and which folder they belong to.

Samples of different models, adapters or protocols are not mixed, and no run's report shows another's.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actors.evaluation.evaluator import response_limit
from actors.models.adapters import WEIGHTS_FILE, Adapter, model_names
from actors.models.files import MODEL_FILES
from actors.storage.evaluation_folder import DOCUMENT, EvaluationFolder
from actors.storage.files import digest
from actors.storage.folders import empty, mark
from actors.storage.layout import EVALUATION
from actors.storage.run_record import RunRecord
from conf.benchmarks import HELD_OUT
from conf.errors import BadInput
from conf.load import recorded
from conf.schema import MAY_CHANGE, Config
from launch.session.resume import among, changes, take_over
from rewards.problems.benchmarks import BenchmarkProblems

EXTENT = ("adapter", "n", "limit")
"""Parts of the protocol that may change when an evaluation goes on: they say how much is drawn, not how."""

OF_ADAPTER = ("adapter_digest", "adapter_config")
"""Parts that an adapter brings, which may join the base model later."""

CONTENT_OF = {"adapter_digest": "adapter", "model_digest": "model"}
"""Parts that stand for the content of what another part names."""


def evaluation_folder(config: Config, run: Path | None) -> EvaluationFolder:
    """Return the folder of an evaluation. run: the one that the adapter comes from.

    Raises BadInput if that would be within another run, or one of another model, whose report would show the results
    as its own.
    """
    home = RunRecord(Path(config.run.folder) / config.run.name)
    if known := recorded(home.path):
        if config.adapter and home.path.resolve() != run:
            raise BadInput(f"adapter={config.adapter}: is not of the run in {home.path}; give run.name=OTHER")
        model = known["model"]["path"]
        if not model_names(model) & model_names(config.model.path):
            raise BadInput(
                f"model.path={config.model.path}: the run in {home.path} is of {model}; give that, or run.name=OTHER"
            )
    return EvaluationFolder(home.evaluation_folder)


def check_heldout_settings(config: Config, run: Path) -> None:
    """Raise BadInput if held-out problems are asked for, and would be chosen otherwise than for the run that the
    adapter comes from.
    """
    if HELD_OUT not in config.benchmarks:
        return
    for key, (before, now) in changes(config, RunRecord(run)).items():
        if among(key, ("data", "eval.problems")) and not among(key, MAY_CHANGE):
            raise BadInput(
                f"benchmarks={HELD_OUT}: the run in {run} has {key}={before}, not {now}, under which problems could "
                "count as held out that it was trained on; leave that setting as it was"
            )


def check_heldout_problems(config: Config, run: Path, posed: Iterable[BenchmarkProblems]) -> None:
    """Raise BadInput if the held-out problems are not those that the run began with."""
    known = RunRecord(run).problems_digest()
    if known is not None and any(each.digest not in ("", known) for each in posed):
        raise BadInput(
            f"benchmarks={HELD_OUT}: {config.data.source} has other problems now than the run in {run} was begun "
            "with, some of which it may have been trained on; restore data and settings, or name other benchmarks"
        )


def protocol_of(config: Config, model_path: str, adapter: Adapter | None) -> dict[str, Any]:
    """Return all that a sample, or its verdict, depends on besides its problem, and how many there are to be."""
    data, settings, reward = config.data, config.eval, config.reward
    shape = {name: getattr(config.lora, name) for name in ("rank", "alpha", "rslora", "target_modules")}
    return {
        "model": config.model.path,
        "model_digest": model_digest(model_path),
        "dtype": config.model.dtype,
        "adapter": str(adapter.folder) if adapter else None,
        "adapter_digest": digest(adapter.folder / WEIGHTS_FILE) if adapter else None,
        "adapter_config": {"base": adapter.base, **shape} if adapter else None,
        "n": config.n,
        "limit": config.limit,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_prompt_tokens": config.rollout.max_prompt_tokens,
        "max_response_tokens": response_limit(config),
        "seed": config.run.seed,
        "stop_tokens": config.model.stop_tokens,
        "chat_settings": data.chat_settings,
        "template": data.template,
        "system": data.system,
        "examples": [{"problem": example.problem, "answer": example.answer} for example in data.examples],
        "after_thinking": reward.after_thinking,
        "custom": [part.function for part in reward.custom],
        "deadline_s": reward.deadline_s,
    }


def model_digest(folder: str) -> str:
    """Return a digest of all files of a model, weights included.

    Their sizes or times would not do, since weights trained further have the same sizes, and a copy on another machine
    has other times.
    """
    files = {file for pattern in MODEL_FILES for file in Path(folder).glob(pattern)}
    return hashlib.blake2b(repr([(file.name, digest(file)) for file in sorted(files)]).encode()).hexdigest()


def take_evaluation(folder: EvaluationFolder, config: Config, protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the folder over and clean up after the process before. Return the results that it has so far.

    Raises BadInput if another process holds it, or if samples were drawn under another protocol.
    """
    name = config.run.name
    take_over(folder.path, f"the evaluation {name!r}")
    if config.run.overwrite and (other := empty(folder.path.resolve(), EVALUATION, last=DOCUMENT)) is not None:
        raise BadInput(
            f"{other} is not the file of an evaluation, and run.overwrite=true would delete it: move it away, or give"
            " run.name=OTHER"
        )
    mark(folder.path, EVALUATION.kind)
    folder.recover()
    document = folder.document() or {}
    results: list[dict[str, Any]] = document.get("benchmarks", [])
    if document and (results or folder.has_samples):
        check_protocol(f"the evaluation {name!r} in {folder.path}", document["protocol"], protocol)
    return results


def check_protocol(what: str, before: dict[str, Any], protocol: dict[str, Any]) -> None:
    """Raise BadInput if samples drawn under one protocol cannot stand beside those of another."""
    for key, now in protocol.items():
        was = before.get(key)
        if key in EXTENT or was == now or (key in OF_ADAPTER and before["adapter"] is None):
            continue
        if part := CONTENT_OF.get(key):
            key, was = part, before[part]
            now = f"{protocol[part]} with other content" if protocol[part] else None
        raise BadInput(
            f"{what} was begun with {key}={was}, not {now}: go on with the same settings, "
            "or give run.name=OTHER or run.overwrite=true"
        )

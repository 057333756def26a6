"""What the samples of an evaluation depend on, and which folder they belong to: they are not mixed with samples of
another model, adapter or protocol, and no run's report shows another's.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actors.evaluation.evaluator import response_limit
from actors.storage.files import digest
from conf.adapters import WEIGHTS_FILE, Adapter, model_names
from conf.benchmarks import HELD_OUT
from conf.errors import BadInput
from conf.load import recorded
from conf.models import MODEL_FILES
from conf.schema import MAY_CHANGE, Config
from launch.session.resume import EVALUATION, PROBLEMS, among, changes, empty, hold
from rewards.problems.benchmarks import Posed

EXTENT = ("adapter", "n", "limit")
"""Parts of the protocol that may change when an evaluation goes on: they say how much is drawn, not how."""

OF_ADAPTER = ("adapter_digest", "adapter_config")
"""Parts that an adapter brings, which may join the base model later."""

CONTENT_OF = {"adapter_digest": "adapter", "model_digest": "model"}
"""Parts that stand for the content of what another part names."""


def place(config: Config, run: Path | None) -> Path:
    """The folder of an evaluation. run: the one that the adapter comes from.

    Raises BadInput if that would be within another run, or one of another model, whose report would show the results
    as its own.
    """
    home = Path(config.run.folder) / config.run.name
    if held := recorded(home):
        if config.adapter and home.resolve() != run:
            raise BadInput(f"adapter={config.adapter}: is not of the run in {home}; give run.name=OTHER")
        theirs = held["model"]["path"]
        if not model_names(theirs) & model_names(config.model.path):
            raise BadInput(
                f"model.path={config.model.path}: the run in {home} is of {theirs}; give that, or run.name=OTHER"
            )
    return home / EVALUATION


def check_data(config: Config, run: Path) -> None:
    """Raise BadInput if held-out problems are asked for, and would be chosen otherwise than for the run that the
    adapter comes from.
    """
    if HELD_OUT not in config.benchmarks:
        return
    for key, (theirs, ours) in changes(config, run).items():
        if among(key, ("data", "eval.problems")) and not among(key, MAY_CHANGE):
            raise BadInput(
                f"benchmarks={HELD_OUT}: the run in {run} has {key}={theirs}, not {ours}, under which problems could "
                "count as held out that it was trained on; leave that setting as it was"
            )


def check_problems(config: Config, run: Path, posed: Iterable[Posed]) -> None:
    """Raise BadInput if the held-out problems are not those that the run began with."""
    known = run / PROBLEMS
    if known.exists() and any(each.digest not in ("", known.read_text()) for each in posed):
        raise BadInput(
            f"benchmarks={HELD_OUT}: {config.data.source} has other problems now than the run in {run} was begun "
            "with, some of which it may have been trained on; restore data and settings, or name other benchmarks"
        )


def protocol_of(config: Config, model_path: str, adapter: Adapter | None) -> dict[str, Any]:
    """All that a sample, or its verdict, depends on besides its problem, and how many there are to be."""
    data, settings, reward, lora = config.data, config.eval, config.reward, config.lora
    return {
        "model": config.model.path,
        "model_digest": model_digest(model_path),
        "dtype": config.model.dtype,
        "adapter": str(adapter.folder) if adapter else None,
        "adapter_digest": digest(adapter.folder / WEIGHTS_FILE) if adapter else None,
        "adapter_config": {
            "base": adapter.base,
            "rank": lora.rank,
            "alpha": lora.alpha,
            "rslora": lora.rslora,
            "target_modules": lora.target_modules,
        }
        if adapter
        else None,
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
    """Of all files of a model, weights included: their sizes or times would not do, since weights trained further have
    the same sizes, and a copy on another machine has other times.
    """
    files = {file for pattern in MODEL_FILES for file in Path(folder).glob(pattern)}
    return hashlib.blake2b(repr([(file.name, digest(file)) for file in sorted(files)]).encode()).hexdigest()


def claim(folder: Path, config: Config, protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the folder this process's own for as long as it lives, and clean up after the one before; the results that
    it has so far.

    Raises BadInput if another process holds it, or if samples were drawn under another protocol.
    """
    name = config.run.name
    hold(folder, f"the evaluation {name!r}")
    if config.run.overwrite:
        empty(folder, last="evaluation.json")
    record = folder / "evaluation.json"
    before = json.loads(record.read_text()) if record.exists() else {}
    results: list[dict[str, Any]] = before.get("benchmarks", [])
    if not before or not (results or any((folder / "samples").glob("*.jsonl"))):
        return []
    drawn = before["protocol"]
    for key, now in protocol.items():
        was = drawn.get(key)
        if key in EXTENT or was == now or (key in OF_ADAPTER and drawn["adapter"] is None):
            continue
        if part := CONTENT_OF.get(key):
            key, was = part, drawn[part]
            now = f"{protocol[part]} with other content" if protocol[part] else None
        raise BadInput(
            f"the evaluation {name!r} in {folder} was begun with {key}={was}, not {now}: go on with the same settings, "
            "or give run.name=OTHER or run.overwrite=true"
        )
    return results

"""What the doctor has found of a model on a recipe's problems, kept for the plans of the same recipe."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import OnErrorOmit, TypeAdapter

from actors.evaluation.statistics import Mean
from actors.models.files import known_pin
from actors.storage.documents import FormattedDocument
from actors.storage.files import read_document, write_document
from conf.parsing import flatten, path_of
from conf.schema import Config, affecting, among
from launch.plan.plan import FILE
from launch.plan.time import Workload

KEPT = "signal.json"
"""Name of the file, in the folder of all runs."""


@dataclass(frozen=True)
class Signal:
    """What the samples of training problems say.

    problems, n: their number, and samples of each. figures: means over problems by their names in
    docs/how-to/is-it-worth-it.md. verdict: see conf/verdicts.yaml. warning: it in a sentence, if it is against a run.
    """

    problems: int
    n: int
    figures: Mapping[str, Mean]
    workload: Workload
    verdict: str = ""
    warning: str = ""


SIGNALS = TypeAdapter(dict[str, OnErrorOmit[Signal]])


class KeptSignals(FormattedDocument):
    """signal.json. signals: by recipe, see `recipe_of`; impossible ones are ignored."""

    signals: dict[str, Any]


def recipe_of(config: Config) -> str:
    """Name the settings that samples and rewards depend on, and the present state of the model and of problem files."""
    keys = affecting("training", "prompt", "response", "verdict", "reward", "rollout")
    known = {key: value for key, value in flatten(asdict(config)).items() if among(key, keys)}
    state: list[str | float] = [known_pin(config.model)]
    for source in (each.source for each in config.data.by_source.values() if each.source.startswith(FILE)):
        file = path_of(source.removeprefix(FILE), f"{config.data.key}: {source}")
        state += [os.path.getsize(file), os.path.getmtime(file)] if os.path.isfile(file) else []
    digest = blake2b(repr([known, state]).encode(), digest_size=6).hexdigest()
    return f"{config.model.path}, {config.data.origin}, {digest}"


def keep_signal(signal: Signal, config: Config, folder: Path) -> Path:
    """Keep a signal in the folder of all runs; it replaces the last one of the same recipe. Return the file.

    Raises BadInput if a file of that name is damaged or somebody else's.
    """
    known = {**_known(folder), recipe_of(config): signal}
    folder.mkdir(parents=True, exist_ok=True)
    write_document(folder / KEPT, KeptSignals(signals=SIGNALS.dump_python(known)))
    return folder / KEPT


def recall_signal(config: Config, folder: Path) -> Signal | None:
    """Return the last signal of a recipe."""
    return _known(folder).get(recipe_of(config))


def best_workload(measured: Workload | None, config: Config, folder: Path) -> Workload | None:
    """Return the workload of a run of this recipe, else that of its signal, else that of the run that is known.

    A signal is taken before a warm start, which changes the lengths.
    """
    signal = recall_signal(config, folder)
    if not signal or config.warm_start.source or (measured and measured.recipe == recipe_of(config)):
        return measured
    return replace(signal.workload, by=f"the doctor on {signal.problems} problems")


def _known(folder: Path) -> dict[str, Signal]:
    kept = read_document(folder / KEPT, KeptSignals)
    return SIGNALS.validate_python(kept.signals if kept else {})

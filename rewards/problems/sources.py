"""Reads rows of problems from the hub, a local file, a generator or a user's function."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from actors.runtime.patience import in_thread
from conf.documents import checked, path_of, reason
from conf.errors import BadInput
from conf.schema import DataConfig
from conf.suggestions import nearest
from rewards.functions import find

EXACT = "exact"
"""The grader of a generator that gives the full score to its very own answer alone."""

RUN_THE_ANSWER = frozenset(
    {
        "binary_matrix",
        "composite",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Generators whose scoring gives the model's answer to `eval` or sympy's `parse_expr`: a worker process would run it as
Python code, with all that the user may do. `composite` passes it on to the generators that its parameters name.
"""


class Row(NamedTuple):
    """One row of a source.

    fields: values by name
    grader: see `actors.messages.Problem`; it stands beside the fields, so that no column of a source can choose it
    """

    fields: dict[str, Any]
    grader: str = ""


def read(key: str, source: str, data: DataConfig, seed: int) -> list[Row]:
    """Read the rows of a source, in its order, `data.scan` of them at most.

    key: the setting that names the source. seed: of a generator. Raises BadInput for a source that does not exist or
    cannot be read.
    """
    scheme, _, reference = source.partition(":")
    return list(islice(SCHEMES[scheme](key, reference, data, seed), data.scan))


def read_hub(key: str, reference: str, data: DataConfig, seed: int) -> Iterable[Row]:
    """Read OWNER/NAME[/config][@revision][:split] of the hub. With `data.scan` only what is read is downloaded."""
    path, _, split = reference.partition(":")
    named, _, revision = path.partition("@")
    owner, name, *config = named.split("/")
    split = split or "train"

    def load() -> list[Row]:
        import datasets

        rows = datasets.load_dataset(
            f"{owner}/{name}", *config, split=split, revision=revision or None, streaming=data.scan is not None
        )
        return [Row(fields) for fields in islice(rows, data.scan)]

    try:
        return in_thread(data.hub_timeout_s, load, setting="data.hub_timeout_s")
    except Exception as error:  # whatever the library raises, the person can do the same about it
        cause = (" ".join(str(error).split())[:300] or type(error).__name__).rstrip(".")
        raise BadInput(
            f"{key}: cannot load split '{split}' of '{path}' from the Hugging Face hub ({cause}): check the name and "
            f"the connection, name a configuration as hub:OWNER/NAME/CONFIG, use a local copy as file:PATH, or for a "
            f"gated data set accept its terms at https://huggingface.co/datasets/{owner}/{name} and set HF_TOKEN"
        ) from error


def read_file(key: str, reference: str, data: DataConfig, seed: int) -> Iterator[Row]:
    path = path_of(reference, f"{key}=file:{reference}")
    if path.suffix not in READERS:
        raise BadInput(f"{key}: '{path}' has an unknown type: use one of {', '.join(READERS)}")
    if not os.path.isfile(path):
        raise BadInput(f"{key}: there is no file '{path}': give the path of an existing one")
    try:
        for number, fields in enumerate(READERS[path.suffix](path), start=1):
            if not isinstance(fields, dict):
                raise BadInput(
                    f"{key}: '{path}' does not hold a list of objects: make each row an object of named fields"
                )
            yield Row(row_of(fields, f"{key}: '{path}', row {number}"))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise BadInput(f"{key}: '{path}' is not a valid {path.suffix} file ({reason(error)}): repair it") from error


def row_of(fields: dict[Any, Any], where: str) -> dict[str, Any]:
    """Return the fields of a row. Raises BadInput for one that is nested too deeply or larger than any problem."""
    try:
        return checked({str(name): value for name, value in fields.items()})
    except ValueError as error:
        raise BadInput(f"{where}: {reason(error)}; repair it or leave it out") from None


def read_reasoning_gym(key: str, reference: str, data: DataConfig, seed: int) -> Iterator[Row]:
    """Draw the entries of a generator, which scores answers itself. Raises BadInput for one of RUN_THE_ANSWER."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if reference in RUN_THE_ANSWER:
        raise BadInput(
            f"{key}: the reasoning_gym generator '{reference}' runs the model's answer as Python code to score it: use "
            f"another generator, or give its problems as file:PATH, whose answers are compared and never run"
        )
    if reference not in DATASETS:
        usable = sorted(DATASETS.keys() - RUN_THE_ANSWER)
        names = ", ".join(nearest(reference, usable) or usable)
        raise BadInput(f"{key}: reasoning_gym has no generator '{reference}': use one of {names}")
    settings = {"seed": seed, **({} if data.size is None else {"size": data.size})}
    try:
        entries = reasoning_gym.create_dataset(reference, **settings, **data.parameters)
        exact = type(entries).score_answer is reasoning_gym.dataset.ProceduralDataset.score_answer
        for index, entry in enumerate(entries):
            grader = {"generator": reference, "settings": {**settings, **data.parameters}, "index": index}
            yield Row(entry, EXACT if exact else json.dumps(grader))
    except (TypeError, ValueError, AssertionError, LookupError, AttributeError, ArithmeticError) as error:
        raise BadInput(
            f"data.parameters: the generator '{reference}' refuses {data.parameters} ({error}): "
            f"use the fields of its configuration class {DATASETS[reference][1].__name__}"
        ) from error


def read_import(key: str, reference: str, data: DataConfig, seed: int) -> Iterator[Row]:
    """Call a user's function with data.parameters and read the rows it yields."""
    rows = find(key, reference)
    try:
        for fields in rows(**data.parameters):
            if not isinstance(fields, dict):
                kind = type(fields).__name__
                raise BadInput(f"{key}: '{reference}' yields a {kind}: make each row a dict of named fields")
            yield Row(row_of(fields, f"{key}: a row of '{reference}'"))
    except BadInput:
        raise
    except (Exception, SystemExit) as error:  # it is the person's own code, which may raise anything
        what = f"{type(error).__name__}: {reason(error)}"
        raise BadInput(
            f"{key}: '{reference}' failed with data.parameters={data.parameters} ({what}): mend it"
        ) from error


def read_jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def read_json(path: Path) -> Iterable[Any]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return rows if isinstance(rows, list) else [None]


def read_csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


SCHEMES: dict[str, Callable[[str, str, DataConfig, int], Iterable[Row]]] = {
    "hub": read_hub,
    "file": read_file,
    "reasoning_gym": read_reasoning_gym,
    "import": read_import,
}
READERS: dict[str, Callable[[Path], Iterable[Any]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}

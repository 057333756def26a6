"""Where problems come from: rows of the hub, of a local file, or of a generator."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf.errors import BadInput
from conf.nearest import nearest
from conf.schema import DataConfig

Row = dict[str, Any]


def read(key: str, data: DataConfig, seed: int) -> list[Row]:
    """All rows of the source that setting `key` of `data` names, in the source's order.

    seed: of a generator; other sources have none. Raises BadInput for a source that does not exist, cannot be
    reached or cannot be read.
    """
    scheme, _, reference = getattr(data, key).partition(":")
    return SCHEMES[scheme](f"data.{key}", reference, data, seed)


def read_hub(key: str, reference: str, data: DataConfig, seed: int) -> list[Row]:
    import datasets

    name, _, split = reference.partition(":")
    split = split or "train"
    try:
        return list(datasets.load_dataset(name, split=split))
    except Exception as error:  # whatever the library raises, the person can do the same about it
        cause = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BadInput(
            f"{key}: cannot load split '{split}' of '{name}' from the Hugging Face hub ({cause}): check the name and "
            f"the connection, use a local copy as file:PATH, or for a gated data set accept its terms at "
            f"https://huggingface.co/datasets/{name} and set HF_TOKEN"
        ) from error


def read_file(key: str, reference: str, data: DataConfig, seed: int) -> list[Row]:
    path = Path(reference).expanduser()
    if path.suffix not in READERS:
        raise BadInput(f"{key}: '{path}' has an unknown type: use one of {', '.join(READERS)}")
    if not path.is_file():
        raise BadInput(f"{key}: there is no file '{path}': give the path of an existing one")
    try:
        rows = READERS[path.suffix](path)
    except (ValueError, csv.Error) as error:
        raise BadInput(f"{key}: '{path}' is not a valid {path.suffix} file ({error}): repair it") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{key}: '{path}' does not hold a list of objects: make each row an object of named fields")
    return rows


def read_reasoning_gym(key: str, reference: str, data: DataConfig, seed: int) -> list[Row]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if reference not in DATASETS:
        names = ", ".join(nearest(reference, DATASETS) or sorted(DATASETS))
        raise BadInput(f"{key}: reasoning_gym has no generator '{reference}': use one of {names}")
    size = {} if data.size is None else {"size": data.size}
    try:
        return list(reasoning_gym.create_dataset(reference, seed=seed, **size, **data.parameters))
    except (TypeError, ValueError, AssertionError) as error:
        raise BadInput(
            f"data.parameters: the generator '{reference}' refuses {data.parameters} ({error}): "
            f"use the fields of its configuration class {DATASETS[reference][1].__name__}"
        ) from error


def read_jsonl(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def read_json(path: Path) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


SCHEMES: dict[str, Callable[[str, str, DataConfig, int], list[Row]]] = {
    "hub": read_hub,
    "file": read_file,
    "reasoning_gym": read_reasoning_gym,
}
READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}

"""Reads rows of problems from the hub, a local file, a generator or a user's function."""

import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from microbudget_rl.actors.clock import in_thread
from microbudget_rl.actors.models.files import HubAway, newest
from microbudget_rl.conf.errors import BadInput, in_brief, nearest
from microbudget_rl.conf.installation import packaged, require
from microbudget_rl.conf.parsing import checked, disguise_of, path_of, reason
from microbudget_rl.conf.schema import DataConfig
from microbudget_rl.rewards.generators import REFUSED, grader_of
from microbudget_rl.rewards.killable_worker import PREPARE_S
from microbudget_rl.rewards.user_function import find

T = TypeVar("T")


class Row(NamedTuple):
    """One row of a source.

    fields: values by name
    grader: see `actors.messages.Problem`; it is not one of the fields, so that no column of a source can choose it
    """

    fields: dict[str, Any]
    grader: str = ""


def read(key: str, source: str, data: DataConfig, seed: int) -> list[Row]:
    """Return the rows of a source in its order, at most `data.scan`.

    key: the setting that names the source. seed: for a generator. Raises BadInput for one that cannot be read.
    """
    scheme, _, reference = source.partition(":")
    rows: list[Row] = []

    def fill() -> None:
        for row in islice(_bounded(key, source, SCHEMES[scheme](key, reference, data, seed), data), data.scan):
            rows.append(row)  # noqa: PERF402 — one by one, so that the other thread sees their number

    try:  # in a thread: a user's function may never yield, and a KeyboardInterrupt in it is its own
        in_thread(PREPARE_S, fill, moved=lambda: len(rows)) if scheme == "import" else fill()
    except (TimeoutError, GeneratorExit) as error:  # the latter is its own: the end of reading raises none here
        what = f"gave no row for {PREPARE_S:g} s" if isinstance(error, TimeoutError) else "raised GeneratorExit"
        raise BadInput(f"{key}: '{reference}' {what}: correct it, or use a file of its rows as file:PATH") from None
    if not rows:
        raise BadInput(f"{key}: '{source}' has no rows: give it some, or use another source")
    return rows


MOST_ROWS = 10**6
"""Largest number of rows that are read if neither data.scan nor data.size asks for more: each takes kilobytes."""

MOST_CHARACTERS = 2**30
"""Largest number of characters in the fields of all rows."""

GENERATED = "reasoning_gym:"
"""Beginning of a source that is made anew for each size."""

PROGRESS_S = 10.0
"""Seconds between two lines about the progress."""

MOST_ROW_CHARACTERS = 2**20
"""Longest row, characters: longer than any model's context; a file without line ends is one row."""

TOO_LONG = f"it has more than {MOST_ROW_CHARACTERS:,} characters"

PARQUET_ROWS = 1024
"""Rows converted to Python objects at a time."""

UNREADABLE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, csv.Error)
"""Errors of the readers; Arrow raises RuntimeError for deep nesting or an unknown type."""


def section_of(key: str) -> str:
    """Return the section with the settings of a source. key: the setting that names it."""
    return key.rpartition(".")[0] if key.startswith("data.") else "data"


def most_rows(data: DataConfig) -> int:
    return data.scan or max(MOST_ROWS, data.size or 0)


def _bounded(key: str, source: str, rows: Iterable[Row], data: DataConfig) -> Iterator[Row]:
    """Yield the rows of a source. Raises BadInput for more than fit into memory: a user's function may never end."""
    characters = 0
    for number, row in enumerate(progress(rows, f"{key}: rows read"), start=1):
        characters += sum(len(value) for value in row.fields.values() if isinstance(value, str))
        if number > most_rows(data) or characters > MOST_CHARACTERS:
            raise BadInput(
                f"{key}: '{source}' has more than {most_rows(data):,} rows or {MOST_CHARACTERS:,} characters: give "
                f"data.scan=N to use only its first N rows, such as data.scan={number // 10 or 1}"
            )
        yield row


def progress(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield items, and print their number so far every PROGRESS_S seconds."""
    shown = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - shown >= PROGRESS_S:
            shown = time.monotonic()
            print(f"{what}: {number:,} so far", flush=True)
        yield item


def read_hub(key: str, reference: str, data: DataConfig, seed: int) -> Iterable[Row]:
    """Read OWNER/NAME[/config][@revision][:split] from the hub. With `data.scan` only the rows read are downloaded."""
    path, _, split = reference.partition(":")
    address, _, revision = path.partition("@")
    owner, name, *config = address.split("/")
    repository, split = f"{owner}/{name}", split or "train"
    most = data.scan or most_rows(data) + 1
    require("datasets")

    def load() -> list[Row]:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError

        away, offline = None, datasets.config.HF_HUB_OFFLINE
        try:
            os.path.isdir(repository) or newest(repository, revision or None, "dataset")
        except HfHubHTTPError:
            pass  # its library says it better
        except HubAway as error:
            away, datasets.config.HF_HUB_OFFLINE = error, True  # else it tries five times before it uses its cache
        how = {"split": split, "revision": revision or None, "streaming": data.scan is not None}
        try:
            return [Row(fields) for fields in islice(datasets.load_dataset(repository, *config, **how), most)]
        except Exception as error:
            raise away or error from None
        finally:
            datasets.config.HF_HUB_OFFLINE = offline

    try:
        return in_thread(data.hub_timeout_s, load, setting="data.hub_timeout_s")
    except Exception as error:  # the remedy is the same whatever the library raises
        raise BadInput(
            f"{key}: cannot load split '{split}' of '{path}' from the Hugging Face Hub ({reason(error)}): check the "
            f"name and the connection, name a configuration as hub:OWNER/NAME/CONFIG, use a local copy as file:PATH, or"
            f" for a gated data set accept its terms at https://huggingface.co/datasets/{repository} and set HF_TOKEN"
        ) from error


def read_file(key: str, reference: str, data: DataConfig, seed: int) -> Iterator[Row]:
    path = packaged(path_of(reference, f"{key}=file:{reference}"))
    if (kind := path.suffix.lower()) not in READERS:
        raise BadInput(f"{key}: '{path}' has an unknown type: use one of {', '.join(READERS)}")
    if not os.path.isfile(path):
        raise BadInput(f"{key}: there is no file '{path}': give the path of an existing one")
    number = 0
    try:
        if kind != ".parquet" and (disguise := disguise_of(path)):
            raise BadInput(f"{key}: '{path}' is {disguise}: unpack it, or save it as {kind} in UTF-8")
        for number, fields in enumerate(READERS[kind](path), start=1):
            yield Row(row_of(fields, f"{key}: '{path}', row {number}"))
    except UNREADABLE as error:
        said = f"row {number + 1}: {reason(error)}" if number or kind == ".csv" else reason(error)
        raise BadInput(f"{key}: '{path}' is not a valid {kind} file ({said}): repair it") from error


def row_of(fields: Any, where: str) -> dict[str, Any]:
    """Return the fields of a row. Raises BadInput for one that has no names, is nested too deeply or is too large."""
    if not isinstance(fields, dict):
        raise BadInput(f"{where} is {json.dumps(fields, default=repr):.60}: make each row an object of named fields")
    try:
        if sum(len(value) for value in fields.values() if isinstance(value, str)) > MOST_ROW_CHARACTERS:
            raise ValueError(TOO_LONG)
        return checked({str(name): value for name, value in fields.items()})
    except ValueError as error:
        raise BadInput(f"{where}: {reason(error)}; repair it or leave it out") from None


def read_gym(key: str, reference: str, data: DataConfig, seed: int) -> Iterator[Row]:
    """Yield the entries of a generator. Raises BadInput for one of `rewards.generators.REFUSED`."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if reference in REFUSED:
        raise BadInput(f"{key}: reasoning_gym's '{reference}' {REFUSED[reference]}: use another one, or file:PATH")
    if reference not in DATASETS:
        usable = sorted(DATASETS.keys() - REFUSED.keys())
        names = ", ".join(nearest(reference, usable) or usable)
        raise BadInput(f"{key}: reasoning_gym has no generator '{reference}': use one of {names}")
    settings = {"seed": seed, **({} if data.size is None else {"size": data.size})}
    try:
        for entry in reasoning_gym.create_dataset(reference, **settings, **data.parameters):
            yield Row(entry, grader_of(reference, {**settings, **data.parameters}, entry))
    except (TypeError, ValueError, AssertionError, LookupError, AttributeError, ArithmeticError) as error:
        raise BadInput(
            f"{section_of(key)}.parameters: the generator '{reference}' refuses {data.parameters} ({error}): "
            f"use the fields of its configuration class {DATASETS[reference][1].__name__}"
        ) from error


def read_import(key: str, reference: str, data: DataConfig, seed: int) -> Iterator[Row]:
    """Yield the rows of a user's function, which is called with data.parameters."""
    try:
        for fields in find(key, reference)(**data.parameters):
            yield Row(row_of(fields, f"{key}: a row of '{reference}'"))
    except (BadInput, GeneratorExit):  # GeneratorExit: the reader has enough rows
        raise
    except BaseException as error:  # a user's own code may raise anything
        what = f"failed with {section_of(key)}.parameters={data.parameters} ({in_brief(error)})"
        raise BadInput(f"{key}: '{reference}' {what}: correct it") from error


def read_jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        while line := file.readline(MOST_ROW_CHARACTERS + 1):
            if len(line) > MOST_ROW_CHARACTERS:
                raise ValueError(TOO_LONG)
            if line.strip():
                yield json.loads(line, object_pairs_hook=each_once)


def read_json(path: Path) -> Iterable[Any]:
    rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=each_once)
    if not isinstance(rows, list):
        raise ValueError("it is not a list of rows")
    return rows


def read_csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)  # an unclosed quote would take the rows up to the next one
        each_once((name, None) for name in rows.fieldnames or ())
        try:
            for row in rows:
                if None in row:
                    raise ValueError("it has more cells than the header; quote a cell that contains a comma")
                yield row
        except csv.Error as error:
            raise ValueError(f"{error}; close the quotes of its cells, and double those inside them") from error


def read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    each_once((name, None) for name in file.schema_arrow.names)
    for batch in file.iter_batches(PARQUET_ROWS):
        yield from batch.to_pylist()


def each_once(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return fields by name. Raises ValueError for a name that occurs twice, since either might be meant."""
    unique: dict[str, Any] = {}
    for name, value in fields:
        if name in unique:
            raise ValueError(f"{name!r} occurs twice")
        unique[name] = value
    return unique


Source = Callable[[str, str, DataConfig, int], Iterable[Row]]
SCHEMES: dict[str, Source] = {
    "hub": read_hub,
    "file": read_file,
    "reasoning_gym": read_gym,
    "import": read_import,
}

Reader = Callable[[Path], Iterable[Any]]
READERS: dict[str, Reader] = {".jsonl": read_jsonl, ".json": read_json, ".csv": read_csv, ".parquet": read_parquet}

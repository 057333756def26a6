"""Documents that come from outside: JSON and YAML, whole files and values within them.

Reading checks their encoding, depth, size, and the type of every field. A fault becomes a BadInput that names the file,
the place in it and the remedy.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TextIO

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from microbudget_rl.conf.errors import BadInput

DEEPEST = 30
"""Largest depth of lists and mappings in a document; this project writes seven levels."""

MOST_VALUES = 10**6
"""Largest number of values in a document. Each YAML alias counts its values again."""

SIGNATURES = {
    b"\x1f\x8b": "compressed by gzip",
    b"PK\x03\x04": "a zip archive or a workbook",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PAR1": "a parquet file",
}
"""First bytes of a file → its format, which is not UTF-8 text."""

FORMAT = 3
"""Format of the files that this project writes and reads back. A change that misreads existing files raises it."""


def path_of(text: str, where: str) -> Path:
    """Return the path that a text names, with the home folder for a `~`. where: the setting, for messages."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise BadInput(f"{where}: there is no such home folder; give the whole path, or set HOME") from None


def read_text(file: Path, remedy: str) -> str:
    """Return the text of a UTF-8 file. Raises BadInput if it cannot be read. remedy: an imperative for that message."""
    with opened(file, remedy) as text:
        return text.read()


@contextmanager
def opened(file: Path, remedy: str) -> Iterator[TextIO]:
    """Yield a UTF-8 file to read. Raises BadInput if it cannot be read, also within."""
    try:
        if not file.is_file():
            missing = "it is not a file" if file.exists() else "there is no such file"
            raise BadInput(f"{file} cannot be read ({missing}); {remedy}")
        with file.open(encoding="utf-8-sig") as text:
            yield text
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read ({reason(error)}); {remedy}") from None


def disguise_of(file: Path) -> str:
    """Name a file's format if its first bytes are not UTF-8 text; otherwise return an empty text."""
    with file.open("rb") as content:
        start = content.read(8)
    return next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), "")


def check_format(document: dict[str, Any], where: str) -> None:
    """Raise BadInput unless a file of this project states this FORMAT. where: the file, for messages."""
    if (version := document.get("format")) != FORMAT:
        stated = "states no format" if version is None else f"has format {_short(version)}"
        raise BadInput(
            f"{where} {stated}, this version of the project reads format {FORMAT}: use the version that wrote it, or"
            " move it out of the way"
        )


def read_json(file: Path, kind: Any, remedy: str) -> Any:
    """Return the content of a JSON file. Raises BadInput unless it has the type `kind`."""
    return parse_json(read_text(file, remedy), kind, str(file), remedy)


def read_json_lines(file: Path, kind: Any, remedy: str) -> Iterator[Any]:
    """Yield the values in a JSONL file, one line at a time in memory. A half-written last line is ignored."""
    with opened(file, remedy) as text:
        for number, line in enumerate(text, start=1):
            if line.endswith("\n"):
                yield parse_json(line[:-1], kind, f"{file}, line {number}", remedy)


def parse_json(text: str, kind: Any, where: str, remedy: str) -> Any:
    """Return the value in a JSON text. Raises BadInput unless it is of type `kind`. where: its place, for messages.

    A type with a true `states_format` has FORMAT among its keys.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON ({reason(error)}); {remedy}") from None
    try:
        checked(document)
        if isinstance(document, dict) and getattr(kind, "states_format", False):
            check_format(document, where)
        return conform(document, kind)
    except ValueError as error:
        raise BadInput(f"{where}: {reason(error)}; {remedy}") from None


def read_yaml(file: Path, remedy: str) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises BadInput if it holds anything else."""
    text = read_text(file, remedy)
    try:
        document = parse_yaml(text)
    except ValueError as error:
        raise BadInput(f"{file}: not valid YAML ({reason(error)}); {remedy}") from None
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise BadInput(f"{file}: holds a {kind}, not `section:` and `key: value` lines; {remedy}")
    return document


def parse_yaml(text: str, loader: Any = None) -> Any:
    """Return the content of a text in YAML. Raises ValueError for any fault. loader: other than `Loader`."""
    try:
        document = checked(yaml.load(text, loader or Loader))
        json.dumps(document)
        return document
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:  # !!int '', !!bool x, a !!set
        raise ValueError(reason(error)) from None


def drops(text: str) -> bool:
    """Whether a YAML reader would drop a comment from a valid text, or fold a line break in a value."""
    tokens = [token for token in yaml.scan(text, Loader) if isinstance(token, yaml.ScalarToken)]
    for token in reversed(tokens):
        text = text[: token.start_mark.index] + text[token.end_mark.index :]
    return "#" in text or any(token.start_mark.line != token.end_mark.line for token in tokens)


def write_yaml(document: Any) -> str:
    """Return a document as YAML that any reader understands alike."""
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True)


PLAIN = {
    "null": ("~|null|Null|NULL|", ["~", *"nN", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": ("[-+]?(0|[1-9][0-9]*)", [*"-+0123456789"]),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
}
"""Type → pattern of its values without a tag or quotes, and their first characters: YAML 1.2's core schema. All else is
text, such as 1:30, `on` and 2026-01-01; but 1e-5 is a number.
"""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # known at run time
    """Reads mappings, lists, texts, numbers, booleans and null, and refuses a key that is given twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) > len({*keys}):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Quotes every text that this reader or a YAML 1.1 reader would not read as text."""


for kind, (pattern, first) in PLAIN.items():
    for codec in (Loader, Dumper):
        codec.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), first)
Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]$"), [*"yYnN"])


def checked(document: Any) -> Any:
    """Return a document unchanged. Raises ValueError if it is too deep or too large, or has a key that is no text."""
    layer, count = [document], 0
    for _ in range(DEEPEST):
        mappings = [value for value in layer if isinstance(value, dict)]
        if odd := [key for mapping in mappings for key in mapping if not isinstance(key, str)]:
            raise ValueError(f"the key {odd[0]!r} is not text, put it in quotes")
        lists = [value for value in layer if isinstance(value, list | tuple | set)]
        count += sum(map(len, mappings)) + sum(map(len, lists))
        if count > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        layer = [inner for value in mappings for inner in value.values()] + [i for value in lists for i in value]
        if not layer:
            return document
    raise ValueError(f"it is nested more than {DEEPEST} levels deep")


adapter = cache(TypeAdapter)


def conform(value: Any, kind: Any) -> Any:
    """Check a value against a type. Return a model if the type is one, otherwise the value unchanged.

    Raises ValueError with the first wrong place and the type expected there.
    """
    try:
        # A copy, in which whole numbers may become floats.
        validated = adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f"={_short(first['input'])}"
        said = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise ValueError(f"{place or 'it'}{given}: {said[0].lower()}{said[1:]}") from None
    return validated if isinstance(validated, BaseModel) else value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def reason(error: BaseException) -> str:
    """Return the text of an error, short enough for a sentence."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _short(value: Any) -> str:
    return text if len(text := repr(value)[:61]) <= 60 else f"{text[:-1]}…"

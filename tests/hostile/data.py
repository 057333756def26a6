"""Data files, sources and columns that cannot be read or used."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import DAMAGES, Case, a_loop
from tests.hostile.models import settings_without
from tests.hostile.stock import Stock

GOOD = [{"problem": f"What is {number} + 5?", "answer": str(number + 5)} for number in range(12)]

FILES: dict[str, tuple[str, bytes, bool | None]] = {
    "lone surrogates": ("a.jsonl", b'{"problem": "\\ud800 1 + 1", "answer": "2"}\n' * 3, None),
    "a surrogate in the answer": ("a.jsonl", b'{"problem": "1 + 1", "answer": "\\udfff"}\n', True),
    "surrogates in a name": ("a.jsonl", b'{"\\ud800": 1}\n', True),
    "not UTF-8": ("a.jsonl", b'{"problem": "\xff\xfe", "answer": "2"}\n', True),
    "UTF-16": ("a.jsonl", '{"problem": "1", "answer": "2"}\n'.encode("utf-16"), True),
    "a byte order mark": ("a.jsonl", b'\xef\xbb\xbf{"problem": "1", "answer": "2"}\n', True),
    "NUL in a problem": ("a.jsonl", b'{"problem": "a\\u0000b", "answer": "2"}\n', None),
    "rows of numbers": ("a.jsonl", b"1\n2\n", True),
    "rows of lists": ("a.jsonl", b"[1]\n[2]\n", True),
    "rows nested deeply": ("a.jsonl", b'{"problem": ' + b"[" * 10_000 + b"]" * 10_000 + b', "answer": "1"}\n', True),
    "rows nested a little less": ("a.jsonl", b'{"problem": ' + b"[" * 900 + b"]" * 900 + b', "answer": "1"}\n', True),
    "giant numbers": ("a.jsonl", b'{"problem": "a", "answer": ' + b"9" * 5000 + b"}\n", True),
    "large numbers": ("a.jsonl", b'{"problem": "a", "answer": ' + b"9" * 4200 + b"}\n", None),
    "infinite answers": ("a.jsonl", b'{"problem": "a", "answer": Infinity}\n', None),
    "one giant line": ("a.jsonl", b'{"problem": "' + b"a" * 3_000_000 + b'", "answer": "1"}\n', None),
    "no rows": ("a.jsonl", b"\n\n", True),
    "no columns": ("a.jsonl", b"{}\n", True),
    "columns of other names": ("a.jsonl", b'{"a": 1, "b": 2}\n', True),
    "null in all columns": ("a.jsonl", b'{"problem": null, "answer": null}\n', True),
    "mappings in all columns": ("a.jsonl", b'{"problem": {"a": 1}, "answer": {"b": 1}}\n', True),
    "booleans in all columns": ("a.jsonl", b'{"problem": true, "answer": false}\n', True),
    "conversation of numbers": ("a.jsonl", b'{"problem": [1, 2], "answer": "1"}\n', None),
    "conversation without roles": ("a.jsonl", b'{"problem": [{"content": "x"}], "answer": "1"}\n', True),
    "conversation of unknown roles": (
        "a.jsonl",
        b'{"problem": [{"role": "\\u0000", "content": "x"}, {"role": "user", "content": "y"}], "answer": "1"}\n',
        None,
    ),
    "a column of the grader's name": ("a.jsonl", b'{"problem": "1", "answer": "x", "grader": "{}"}\n', None),
    "json that is a mapping": ("a.json", b'{"problem": "1"}', True),
    "json that is a number": ("a.json", b"3", True),
    "json that is null": ("a.json", b"null", True),
    "json nested deeply": ("a.json", b"[" * 10_000 + b"]" * 10_000, True),
    "json of texts": ("a.json", b'["a"]', True),
    "json that is cut": ("a.json", b'[{"problem": "1"', True),
    "json that is empty": ("a.json", b"", True),
    "an empty list": ("a.json", b"[]", True),
    "csv with NUL": ("a.csv", b"problem,answer\n1,\x002\n", None),
    "csv not UTF-8": ("a.csv", b"problem,answer\n\xff,2\n", True),
    "csv of one giant field": ("a.csv", b"problem,answer\n" + b"a" * 200_000 + b",2\n", True),
    "csv without rows": ("a.csv", b"problem,answer\n", True),
    "csv that is empty": ("a.csv", b"", True),
    "csv of longer rows": ("a.csv", b"problem,answer\n1,2,3,4\n", None),
    "csv of shorter rows": ("a.csv", b"problem,answer\n1\n", True),
    "csv with an open quote": ("a.csv", b'problem,answer\n"1,2\n', True),
    "parquet that is text": ("a.parquet", b"problem,answer", True),
    "parquet that is empty": ("a.parquet", b"", True),
    "parquet of zeros": ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", True),
    "parquet with a giant footer": ("a.parquet", b"PAR1" + bytes(20) + b"\xff\xff\xff\x7fPAR1", True),
    "unknown type": ("a.txt", b"1", True),
    "no type": ("a", b"1", True),
    "a pickle": ("a.pkl", b"\x80\x04.", True),
}

SOURCES = (
    "file:",
    "file:/",
    "file:/dev/zero",
    "file:/proc/self/mem",
    "file:none.jsonl",
    "file:~nobody/none.jsonl",
    "file:a\0b.jsonl",
    f"file:{'a' * 300}.jsonl",
    f"file:{'a/' * 3000}a.jsonl",
    "hub:../..",
    "hub:a/..",
    "hub:./.",
    "hub:a b/c",
    "hub:a/b/../c",
    "hub:",
    "hub:a",
    "reasoning_gym:",
    "reasoning_gym:no_such",
    "reasoning_gym:n_queens",
    "import::",
    "import:..:x",
    "import:.a:b",
    "import:os:no_such",
    "import:os:sep",
    "import:no_such_module:x",
    "import:hostile_exits:rows",
    "import:hostile_syntax:rows",
    "import:hostile_raises:rows",
    "import:hostile_rows:raises",
    "import:hostile_rows:number",
    "import:hostile_rows:numbers",
    "import:hostile_rows:late",
    "import:hostile_rows:exits",
    "import:hostile_rows:takes",
    "ftp:x",
    "",
    "x",
)

MODULES = {
    "hostile_exits": "import sys\nsys.exit(7)\n",
    "hostile_syntax": "def rows(:\n",
    "hostile_raises": "raise KeyError('x')\n",
    "hostile_rows": (
        "import sys\n"
        "def raises(): raise KeyError('x')\n"
        "def number(): return 3\n"
        "def numbers(): return [1, 2]\n"
        "def late():\n    yield {'problem': '1 + 1', 'answer': '2'}\n    raise ZeroDivisionError\n"
        "def exits(): sys.exit(7)\n"
        "def takes(needed): return []\n"
    ),
}

COLUMNS = (
    "data.problem_field=none",
    "data.answer_field=''",
    "data.problem_pattern='('",
    "data.problem_pattern='abc'",
    "data.problem_pattern='(a+)+$'",
    "data.problem_pattern='(z)'",
    "data.template=x",
    "data.template=null",
    "data.size=1",
    "data.size=0",
    "data.scan=1",
    "data.parameters={a: 1}",
    "data.parameters={1: 1}",
    "data.parameters=[1]",
    "data.examples=[1]",
    "data.examples=[{problem: 1}]",
    "data.examples=[{a: 1}]",
    "data.examples=3",
    "data.eval_source=file:none.jsonl",
    "eval.problems=13",
    "rollout.max_prompt_tokens=1",
    "model.stop_tokens=[none]",
    "model.stop_tokens=[[1]]",
)
SOUND = ("data.parameters={a", "data.answer_field", "data.examples=[{problem", "data.problem_pattern='(a+")


def cases() -> Iterator[Case]:
    for name, (file, content, refused) in FILES.items():
        yield Case("data", name, "problems", _file(file, content), refused)
    for damage in DAMAGES:
        for kind in ("jsonl", "json", "csv", "parquet"):
            rows = damage.__name__ in ("cut",) and kind == "csv"
            either = None if damage.__name__ in ("flipped",) or rows else True
            yield Case("data", f"{kind}: {damage.__name__}", "problems", _damaged(kind, damage), either)
    for source in SOURCES:
        yield Case("data", f"source {source[:40]!r}", "problems", _source(source))
    for setting in COLUMNS:
        refused = None if setting.startswith(SOUND) else True
        yield Case("data", setting, "run", _setting(setting), refused)


def _file(name: str, content: bytes):
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / name).write_bytes(content)
        return [f"file:{place / name}", *settings_without(stock, "data.source")]

    return prepare


def _damaged(kind: str, damage):
    def prepare(place: Path, stock: Stock) -> list[str]:
        file = place / f"rows.{kind}"
        if kind == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in GOOD))
        elif kind == "json":
            file.write_text(json.dumps(GOOD))
        elif kind == "csv":
            file.write_text("problem,answer\n" + "".join(f"{row['problem']},{row['answer']}\n" for row in GOOD))
        else:
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GOOD), file)
        damage(file)
        return [f"file:{file}", *settings_without(stock, "data.source")]

    return prepare


def _source(source: str):
    def prepare(place: Path, stock: Stock) -> list[str]:
        for name, text in MODULES.items():
            (place / f"{name}.py").write_text(text)
        return [source, *settings_without(stock, "data.source")]

    return prepare


def _setting(setting: str):
    def prepare(place: Path, stock: Stock) -> list[str]:
        key = setting.partition("=")[0]
        return [*settings_without(stock, key), setting, f"run.folder={place / 'runs'}", "run.name=x"]

    return prepare


__all__ = ["a_loop", "cases"]

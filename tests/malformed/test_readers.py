"""Malformed input for each reader, in the places where it once did harm: one sentence, exit code 2, no file changed.

EXAMPLES=100 tries 100 random examples, other ones each time.
"""

import json
import os
import re
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import settings as all_settings
from tests.malformed.conftest import CHECKPOINT, READERS, RUN, Stock, check

MORE = os.environ.get("EXAMPLES")
some = settings(
    max_examples=int(MORE or 5),
    derandomize=not MORE,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]  # a case that hangs

DEEP = "[" * 5000 + "]" * 5000
LEVELS = (f"{name}: &{name} [{','.join([f'*{before}'] * 8)}]" for before, name in pairwise("abcdefgh"))
BOMB = "{a: &a [1,1,1,1,1,1,1,1], " + ", ".join(LEVELS) + "}"
MANY = "9" * 5000

TYPED: dict[tuple[str, ...], list[str]] = {
    ("run", "plan=true"): [
        *(f"run.seed={MANY}", "lora.rank=.nan", "run={1: 2}", "--x", "model.path=a\0b", "conf=../base"),
        *("lora.rank=${oc.env:HOME}", "lora.rank=!!python/object:os.system"),
        *(f"data.parameters={word}" for word in (DEEP, BOMB, "&a {b: *a}")),
        *(f"data.problem_pattern='{word}'" for word in ("(a{99999999999})", "(" * 2000 + ")" * 2000)),
        "reward.custom=[{function: 'os:getcwd', weight: .nan}]",
    ],
    ("run", "run.name=x"): [
        *("run.folder={file}/x", "run.folder=/proc/none", "run.folder=" + "a" * 300, "checkpoint.copy=exit 3"),
        *(f"data.source={name}" for name in ("file:/dev/zero", "hub:../..", "import:os:sep", "reasoning_gym:n_queens")),
        *("lora.start_from={data}", "checkpoint.copy=no-such-program"),
    ],
    ("evaluate", "plan=true"): ["adapter=/proc/self/mem", "adapter=" + "a/" * 3000],
    ("samples", "{trained}"): [f"limit={MANY}", "show=wors", "{finished}"],
    ("export", "{trained}"): ["checkpoint=../../..", "typ=f16", "type=int8"],
    ("serve", "{trained}"): [f"port={MANY}", "host=no such host"],
}
"""By command and first words: another one, with which it has to be refused. {model} and the like are of the stock."""

ROWS = [
    ("a.jsonl", b'{"problem": ' + b"[" * 10_000 + b"]" * 10_000 + b', "answer": "1"}\n'),
    ("a.jsonl", b'{"problem": "a", "answer": ' + MANY.encode() + b"}\n"),
    ("a.jsonl", b'{"problem": "' + b"a" * 50_000_000 + b'", "answer": "1"}\n'),
    ("a.parquet", b"PAR1" + bytes(20) + b"\xff\xff\xff\x7fPAR1"),
    ("a\x1b[31m\u202e[b].jsonl", b"1\n"),
]
"""Files of problems, beside those of tests/rewards/problems/test_sources.py."""

DAMAGED: list[tuple[str, str, str | dict[str, Any] | None]] = [
    ("problems", "config.json", {"hidden_size": 10**30}),
    ("problems", "chat_template.jinja", "{{ 'x' * 99999999999 }}"),
    ("problems", "model.safetensors.index.json", '{"weight_map": {"a": "../x"}}'),
    ("evaluate", f"{RUN}/{CHECKPOINT}/adapter/adapter_config.json", {"base_model_name_or_path": "a\0b"}),
    ("run", f"{RUN}/spent.json", '{"spent_s": 1e999}'),
    ("run", f"{RUN}/{CHECKPOINT}/coordinator.json", MANY),
    ("report", "metrics.jsonl", '{"update": 1e999}\n'),
    ("serve", f"{CHECKPOINT}/manifest.json", "[1]"),
    ("export", "config.yaml", "\xff\xfe"),
    ("samples", "samples/eval-final.jsonl", None),
]
"""A command, a file of what it reads, and what is there instead: a text, other values in its JSON, or a folder."""


@pytest.mark.parametrize(("start", "word"), [(start, word) for start, words in TYPED.items() for word in words])
def test_what_is_typed(start: tuple[str, ...], word: str, stock: Stock, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    names = {"file": tmp_path / "file", "here": tmp_path, **vars(stock)}
    words = [re.sub(r"\{(\w+)\}", lambda name: str(names.get(name[1], name[0])), each) for each in (*start[1:], word)]
    own = stock.settings(*(each.partition("=")[0] for each in words)) if start[0] in ("run", "evaluate") else []
    check(start[0], [*own, *words], tmp_path, refused=True)


@pytest.mark.parametrize(("name", "content"), ROWS, ids=[ascii(content[:30]) for _, content in ROWS])
def test_rows_of_data(name: str, content: bytes, stock: Stock, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    check("problems", [f"file:{tmp_path / name}", *stock.settings("data.source")], tmp_path, refused=True)


@pytest.mark.parametrize(("command", "name", "content"), DAMAGED)
def test_files_of_models_and_runs(
    command: str, name: str, content: str | dict[str, Any] | None, stock: Stock, tmp_path: Path
):
    def damage(copy: Path) -> None:
        file = copy / name
        other = json.dumps({**json.loads(file.read_text()), **content}) if isinstance(content, dict) else content
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        file.mkdir() if other is None else file.write_text(other, "latin-1")

    check(command, stock.reading(command, tmp_path, damage), tmp_path, refused=True)


KEYS = [item.path for item in all_settings(Config)]
SIMPLE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
NESTED = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


@some
@given(key=st.sampled_from(KEYS) | st.text(max_size=20), word=st.text(max_size=12) | NESTED.map(repr))
def test_whatever_is_typed(stock: Stock, key: str, word: str):
    own = stock.settings(key, *(["model.path"] if key.partition(".")[0] == "model" else []))
    with tempfile.TemporaryDirectory() as place:
        check("run", [*own, *([] if key == "plan" else ["plan=true"]), "run.name=x", f"{key}={word}"], Path(place))


OTHER = st.sampled_from([b"", b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"NaN", b"\xff", b"\0", b"9" * 5000, None])


@pytest.mark.parametrize("command", READERS)
@some
@given(which=st.integers(0, 1000), at=st.integers(0, 2**20), cut=st.integers(0, 2), other=OTHER)
def test_whatever_becomes_of_a_file(stock: Stock, command: str, which: int, at: int, cut: int, other: bytes | None):
    """Something else is put into a file, instead of the rest (cut=1) or of all of it (cut=2); None: it is a folder."""

    def damage(copy: Path) -> None:
        files = sorted(file for file in copy.rglob("*") if file.is_file() and not file.is_symlink())
        file = files[which % len(files)]
        content = file.read_bytes()
        at_ = at % (len(content) + 1)
        if other is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(content[: at_ * (cut < 2)] + other + content[at_:] * (not cut))

    with tempfile.TemporaryDirectory() as place:
        check(command, stock.reading(command, Path(place), damage), Path(place))

"""Malformed input of every kind, each in the place where it once did harm."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.malformed.commands import Prepare, copied, tried
from tests.malformed.stock import RUN, Stock

DEEP = "[" * 5000 + "]" * 5000
BOMB = (
    "{a: &a [1,1,1,1,1,1,1,1], "
    + ", ".join(f"{name}: &{name} [{','.join([f'*{before}'] * 8)}]" for before, name in pairwise("abcdefgh"))
    + "}"
)
MANY = "9" * 5000

pytestmark = pytest.mark.timeout(300)  # a case that hangs


Case = tuple[str, str, Prepare]
"""A name, a command and its input."""

TYPED: dict[tuple[str, ...], list[str]] = {
    ("run", "plan=true"): [
        *(f"run.seed={MANY}", "lora.rank=.nan", "run={1: 2}", "--x", "model.path=a\0b", "conf=../base"),
        *("lora.rank=${oc.env:HOME}", "lora.rank=!!python/object:os.system", "dashboard.host=no such host"),
        *(f"data.parameters={word}" for word in (DEEP, BOMB, "&a {b: *a}")),
        *(f"data.problem_pattern='{word}'" for word in ("(a{99999999999})", "(" * 2000 + ")" * 2000)),
        "reward.custom=[{function: 'os:getcwd', weight: .nan}]",
    ],
    ("run", "run.name=x"): [
        *("run.folder={file}/x", "run.folder=/proc/none", "run.folder=" + "a" * 300, "checkpoint.remote=memory://x"),
        *(f"data.source={name}" for name in ("file:/dev/zero", "hub:../..", "import:os:sep", "reasoning_gym:n_queens")),
        *("lora.start_from={data}", "checkpoint.remote=file://{file}/x", "run.restore=file://{finished}"),
        "data.chat_settings={chat_template: '{{ 1 / 0 }}'}",
    ],
    ("sweep", "plan=true"): ["ranks=[[8]]", "seeds=[1,1]", "sweep.name=../x"],
    ("evaluate", "plan=true"): ["adapter=/proc/self/mem", "adapter=" + "a/" * 3000],
    ("report",): ["\udcff", "{file}", "a=b"],
    ("samples", "{trained}"): [f"limit={MANY}", "show=wors", "{finished}"],
    ("export", "{trained}"): ["checkpoint=../../..", "typ=f16"],
    ("push", "{trained}"): ["dry_run=true", "to=a/b/c", "to=me/mi ne"],
    ("push", "{trained}", "to=a/b"): ["format=gguf"],
    ("chat",): ["{here}"],
    ("serve", "{trained}"): [f"port={MANY}", "host=no such host"],
    ("microbudget",): ["\x1b[31m"],
    ("doctor",): ["measure=maybe", "device=none"],
    ("bundled", "a"): ["b"],
    ("verify",): ["none.jsonl"],
}
"""By command and first words: another one, with which it has to be refused. {model} and the like are of the stock."""

DATA = [
    ("a.jsonl", b'{"problem": ' + b"[" * 10_000 + b"]" * 10_000 + b', "answer": "1"}\n'),
    ("a.jsonl", b'{"problem": "a", "answer": ' + MANY.encode() + b"}\n"),
    ("a.jsonl", b'{"problem": "' + b"a" * 50_000_000 + b'", "answer": "1"}\n'),
    ("a.jsonl", b'{"problem": "1 + 1", "answer": "\\udfff"}\n'),
    ("a.parquet", b"PAR1" + bytes(20) + b"\xff\xff\xff\x7fPAR1"),
    ("a\x1b[31m\u202e[b].jsonl", b"1\n"),
]
"""Files of problems, beside those of tests/rewards/problems/test_sources.py."""

CHECKPOINT = "checkpoints/update-000004"

DAMAGED = [
    ("problems", "config.json", {"num_hidden_layers": 3}),
    ("problems", "config.json", {"hidden_size": 10**30}),
    ("problems", "chat_template.jinja", "{{ 'x' * 99999999999 }}"),
    ("problems", "model.safetensors.index.json", '{"weight_map": {"a": "../x"}}'),
    ("evaluate", f"{RUN}/{CHECKPOINT}/adapter/adapter_config.json", {"base_model_name_or_path": "a\0b"}),
    ("run", f"{RUN}/samples", "x"),
    ("run", f"{RUN}/spent.json", '{"spent_s": 1e999}'),
    ("run", f"{RUN}/{CHECKPOINT}/coordinator.json", MANY),
    ("report", "metrics.jsonl", '{"update": 1e999}\n'),
    ("serve", f"{CHECKPOINT}/manifest.json", "[1]"),
    ("push", "config.yaml", "\xff\xfe"),
    ("samples", "samples/eval-final.jsonl", None),
]
"""A command, a file of what it is given, and what is there instead: a text, other values in its JSON, or a folder."""


def typed(command: str, *words: str) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / "file").write_text("x")
        names = {"file": place / "file", "here": place, **vars(stock)}
        arguments = [re.sub(r"\{(\w+)\}", lambda found: str(names.get(found[1], found[0])), word) for word in words]
        keys = [word.partition("=")[0] for word in words]
        return [*(stock.without(*keys) if command in ("run", "evaluate", "sweep", "doctor") else []), *arguments]

    return f"{command} {' '.join(words)}", command, prepare


def data(name: str, content: bytes) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / name).write_bytes(content)
        return [f"file:{place / name}", *stock.without("data.source")]

    return f"data {name} {content[:30]!r}", "problems", prepare


def damaged(command: str, name: str, content: str | dict[str, Any] | None) -> Case:
    def damage(file: Path) -> None:
        other = json.dumps({**json.loads(file.read_text()), **content}) if isinstance(content, dict) else content
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        if other is None:
            file.mkdir()
        else:
            file.write_text(other, "latin-1")

    return f"{command} {name} {content}", command, copied(command, lambda copy: damage(copy / name))


CASES = [
    *(typed(*start, word) for start, words in TYPED.items() for word in words),
    *(data(*each) for each in DATA),
    *(damaged(*each) for each in DAMAGED),
]


@pytest.mark.parametrize(
    ("command", "prepare"), [case[1:] for case in CASES], ids=[ascii(name)[1:70] for name, *_ in CASES]
)
def test_malformed_input_ends_in_one_sentence(
    command: str, prepare: Prepare, stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert tried(command, prepare, tmp_path, stock, refused=True) == ""

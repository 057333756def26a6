"""Names of files and folders with markup, control characters or beyond what a file system takes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.models import settings_without
from tests.hostile.stock import Stock

NAMES = (
    "a[/b].jsonl",
    "[bold]a.jsonl",
    "[red]x[/red].jsonl",
    "[/].jsonl",
    "[link=file:x]a.jsonl",
    "a\x1b[31mb.jsonl",
    "a\nb.jsonl",
    "a\tb.jsonl",
    "a\rb.jsonl",
    "a\u202eb.jsonl",
    "\udcff.jsonl",
    "a b.jsonl",
    "a'b.jsonl",
    'a"b.jsonl',
    "a: b.jsonl",
    "${x}.jsonl",
    ":smile:.jsonl",
    "a,b.jsonl",
    "-a.jsonl",
    "*.jsonl",
    "%s.jsonl",
    "{0}.jsonl",
    "é日本.jsonl",
)
LONG = "a" * 300
IMPOSSIBLE = {
    "run.name too long": f"run.name={LONG}",
    "run.folder too long": f"run.folder={LONG}",
    "run.folder with NUL": "run.folder=a\0b",
    "run.folder a file": "run.folder={file}",
    "run.folder below a file": "run.folder={file}/x",
    "run.folder in /proc": "run.folder=/proc/none",
    "model.path too long": f"model.path={LONG}",
    "model.path with NUL": "model.path=a\0b",
    "start_from with NUL": "lora.start_from=a\0b",
    "start_from too long": f"lora.start_from={LONG}",
    "start_from a file": "lora.start_from={file}",
    "~ of nobody": "model.path=~nobody-here/x",
}


def cases() -> Iterator[Case]:
    for name in NAMES:
        yield Case("names", f"data {name!r}", "problems", _data(name), None)
        yield Case("names", f"run on {name!r}", "run", _run(name), None)
    for name, setting in IMPOSSIBLE.items():
        yield Case("names", name, "run", _setting(setting))
    for name in ("a\0b", LONG, "", "a/" * 3000, "/proc/self/mem", "/dev/null", "\udcff"):
        yield Case("names", f"report {name[:20]!r}", "report", lambda place, stock, name=name: [name])
        yield Case("names", f"verify {name[:20]!r}", "verify", _verify(name), None if name == "/dev/null" else True)
        yield Case("names", f"adapter {name[:20]!r}", "evaluate", _adapter(name), None if name == "" else True)
    for arguments in (["--recipe", "x", "f"], [], ["--none"], ["a", "b"], ["--recipe"], ["f", "--recipe", "\x1b"]):
        yield Case("names", f"verify {arguments}", "verify", lambda place, stock, a=arguments: list(a))
    for arguments in (["help", "x"], ["help", "a[/b]"], ["help", "\x1b"]):
        yield Case("names", f"{arguments}", "run", lambda place, stock, a=arguments: list(a))
    for name in ("[bold]r", "[/r]", "r\x1b[31m"):
        yield Case("names", f"a run {name!r} on report", "report", _report(name), None)


def _data(name: str) -> Callable[[Path, Stock], list[str]]:
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(stock.data.read_text())
        return [f"file:{place / name}", *settings_without(stock, "data.source")]

    return prepare


def _run(name: str) -> Callable[[Path, Stock], list[str]]:
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(stock.data.read_text())
        source = json.dumps(f"file:{place / name}", ensure_ascii=False).replace("${", "\\\\${")
        given = settings_without(stock, "data.source")
        return [*given, f"data.source={source}", f"run.folder={place / 'runs'}", "run.name=x"]

    return prepare


def _setting(setting: str) -> Callable[[Path, Stock], list[str]]:
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / "file").write_text("x")
        given = settings_without(stock, setting.partition("=")[0])
        return [*given, setting.replace("{file}", str(place / "file"))]

    return prepare


def _verify(name: str) -> Callable[[Path, Stock], list[str]]:
    return lambda place, stock: [name]


def _adapter(name: str) -> Callable[[Path, Stock], list[str]]:
    return lambda place, stock: [*stock.settings, f"adapter={name}", "plan=true", "n=1", f"run.folder={place / 'runs'}"]


def _report(name: str) -> Callable[[Path, Stock], list[str]]:
    def prepare(place: Path, stock: Stock) -> list[str]:
        (place / name).mkdir(parents=True)
        (place / name / "config.yaml").write_text(json.dumps({"run": {"name": name}, "model": {"path": name}}))
        return [str(place / name)]

    return prepare

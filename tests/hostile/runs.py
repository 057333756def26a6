"""Run folders, sweeps and evaluations whose files are damaged, on report, resume, evaluate and result."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.case import DAMAGES, JUNK, Case, a_loop, an_object, changed, copied, null
from tests.hostile.stock import RUN, Stock
from tests.run_folders import write_sweep

REPORTED = (
    "config.yaml",
    "summary.json",
    "metrics.jsonl",
    "samples/eval-base.jsonl",
    "samples/eval-final.jsonl",
    "evaluation/evaluation.json",
)
RESUMED = (
    "config.yaml",
    "problems.digest",
    "metrics.jsonl",
    "events.jsonl",
    "spent.json",
    "ledger.json",
    "incarnation.json",
    "eval-base.json",
    "probe.json",
)
OPTIONAL = ("summary.json", "evaluation/evaluation.json", "ledger.json", "eval-base.json", "probe.json")

SUMMARY: dict[str, tuple[Any, ...]] = {
    "status": (None, 3, ["a"]),
    "reason": (3, {"a": 1}),
    "updates": ("x", None, [1]),
    "budget_s": ("x", -1, {}),
    "spent_s": ("x", None, [1]),
    "eval": ([], "x", 3),
    "eval/base": ([], "x", True),
    "eval/base/n": ("x", 0, None, 1e400),
    "eval/base/problems": ("x", None, -1),
    "eval/base/pass@1": ("x", None, [0.5]),
    "eval/base/ci95": (None, [1], "x", [1, None]),
    "eval/final/mean_length": ("x", None),
    "eval/final/truncated": ([], None),
    "ledger": ([], "x"),
    "ledger/seconds": ([], 3),
    "ledger/seconds/run": ([], 3),
    "ledger/seconds/learner/update": ("x", None, -1e400),
    "ledger/counts": ([], "x"),
    "ledger/counts/tokens~useful": ("x", None),
    "plasticity": ([], 3),
    "plasticity/probe_entropy": (3, {}),
    "plasticity/probe_entropy/change": ("x", None),
    "plasticity/adapter_norm": ([1], {"a": "x"}),
    "plasticity/effective_rank": ({"0.q_proj": "x"}, [1]),
    "versions": ([], "x"),
}
EVALUATION: dict[str, tuple[Any, ...]] = {
    "protocol": ([], 3, None),
    "protocol/model": (3, None),
    "protocol/adapter": (3, []),
    "benchmarks": (3, {"a": 1}, [3], None),
    "benchmarks/0/name": (3, None, "a[/b]"),
    "benchmarks/0/base": (3, []),
    "benchmarks/0/base/pass@1": (3, {"value": "x"}),
    "benchmarks/0/base/n": ("x",),
    "benchmarks/0/paired": ({}, {"difference": "x", "ci95": 3, "p": None}),
    "benchmarks/0/dropped": ([], 3),
}
SETTINGS: dict[str, tuple[Any, ...]] = {
    "run": ([], 3, None),
    "run/name": ([], {"a": 1}, 3),
    "run/seed": ("x", []),
    "lora": ([], "x"),
    "lora/rank": ("x", None, [1]),
    "eval/n": ("x", []),
    "learner/max_staleness": ("x",),
    "learner/learning_rate": ("x", {}),
    "model/path": (3, None, []),
    "model": (None, "x"),
}
ROWS = ("7", "[]", '"x"', "null", "{}", '{"update": "x"}', '{"update": null}', '{"update": 1, "reward/mean": "x"}')


def cases() -> Iterator[Case]:
    yield from _damaged_reports()
    yield from _damaged_resumes()
    yield from _evaluations()
    yield from _sweeps()
    yield from _results()
    yield from _other_versions()


def _damaged_reports() -> Iterator[Case]:
    for file in REPORTED:
        for damage in DAMAGES:
            either = (file in OPTIONAL and damage in (a_loop, null)) or damage is a_loop
            jsonl = file.endswith("jsonl") and damage.__name__ in ("emptied", "cut", "an_object", "zeroed")
            whole = damage.__name__ in ("cut", "an_object") and file == "config.yaml"  # what is left may be sound
            yield _report(f"{file}: {damage.__name__}", _on(file, damage), None if either or jsonl or whole else True)
    for path, values in SUMMARY.items():
        for value in values:
            yield _report(f"summary {path} = {value!r}", _in_json("summary.json", path, value), None)
    for path, values in EVALUATION.items():
        for value in values:
            yield _report(f"evaluation {path} = {value!r}", _in_json("evaluation/evaluation.json", path, value), None)
    for path, values in SETTINGS.items():
        for value in values:
            yield _report(f"config {path} = {value!r}", _in_yaml(path, value), None)
    for row in ROWS:
        for file in ("metrics.jsonl", "samples/eval-base.jsonl", "events.jsonl", "problems-left-out.jsonl"):
            yield _report(f"{file} with a row {row}", _add(file, row), None)


def _damaged_resumes() -> Iterator[Case]:
    for file in RESUMED:
        for damage in DAMAGES:
            whole = file == "problems.digest" or damage in (a_loop, null)
            rows = file.endswith("jsonl") and damage.__name__ in ("cut", "emptied", "zeroed")
            sound = (file, damage.__name__) in (("ledger.json", "an_object"), ("incarnation.json", "a_number"))
            yield _resume(f"{file}: {damage.__name__}", _on(file, damage), None if whole or rows or sound else True)
    for path, values in SETTINGS.items():
        for value in values:
            yield _resume(f"config {path} = {value!r}", _in_yaml(path, value))
    for value in JUNK:
        yield _resume(f"spent_s = {value!r}"[:60], _in_json("spent.json", "spent_s", value))
    for row in ROWS:
        yield _resume(f"metrics.jsonl with a row {row}", _add("metrics.jsonl", row))
    for damage in DAMAGES:
        if damage not in (a_loop, null):
            yield _resume(f"a summary: {damage.__name__}", _summary(damage), None)


def _evaluations() -> Iterator[Case]:
    files = ("config.yaml", "checkpoints/latest/adapter/adapter_config.json", "evaluation/evaluation.json")
    for file in files:
        for damage in DAMAGES:
            yield _evaluate(f"{file}: {damage.__name__}", file, damage)
    for name in ("heldout-base.jsonl", "heldout-adapter.jsonl"):
        for row in ROWS:
            yield _evaluate(
                f"{name} with a row {row}", f"evaluation/samples/{name}", lambda at, row=row: _line(at, row)
            )


def _sweeps() -> Iterator[Case]:
    for damage in DAMAGES:
        yield _sweep(f"sweep.json: {damage.__name__}", damage, None if damage in (a_loop,) else True)
    entry = {"cell": "r8", "overrides": {"lora.rank": 8}, "run": "r8", "status": "completed"}
    plans: tuple[Any, ...] = (
        {"cells": 3},
        {"cells": [3]},
        {"cells": [{}]},
        {"cells": []},
        {"cells": [{**entry, "overrides": []}]},
        {"cells": [{**entry, "overrides": {"lora.rank": {"a": 1}}}]},
        {"cells": [{**entry, "cell": 3}]},
        {"cells": [{**entry, "run": "../../../etc"}]},
        {"cells": [{**entry, "run": "a\0b"}]},
        {"cells": [{**entry, "status": []}]},
        {"name": {}, "cells": [entry]},
    )
    for plan in plans:
        text = json.dumps(plan)
        yield _sweep(f"sweep.json = {text}"[:90], lambda file, text=text: file.write_text(text), None)


def _results() -> Iterator[Case]:
    for damage in DAMAGES:
        if damage is not a_loop:
            yield _result(f"summary.json: {damage.__name__}", _on("summary.json", damage))
    for path in ("status", "spent_s", "updates", "eval", "eval/base", "eval/final/ci95", "cost"):
        yield _result(f"summary {path} = []", _in_json("summary.json", path, []))


def _other_versions() -> Iterator[Case]:
    """Runs of another version of this project: a setting that has gone, one that has come."""

    def gone(run: Path) -> None:
        _in_yaml("learner/overlap", True)(run)

    yield _report("a setting that has gone", gone, False)
    yield _resume("a setting that has gone", gone)
    yield _evaluate("a setting that has gone", "config.yaml", lambda file: gone(file.parent))
    yield _report("few settings", lambda run: (run / "config.yaml").write_text("run: {name: a}\n"), None)
    yield _resume("few settings", lambda run: (run / "config.yaml").write_text("run: {name: a}\n"))
    letters = "abcdefghij"
    bomb = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
        f"{here}: &{here} [{','.join([f'*{before}'] * 8)}]\n" for before, here in pairwise(letters)
    )
    yield _report("a bomb of aliases", lambda run: (run / "config.yaml").write_text(bomb))
    yield _resume("a bomb of aliases", lambda run: (run / "config.yaml").write_text(bomb))
    circle = "run: &a\n  name: x\n  inner: *a\n"
    yield _report("a circle of aliases", lambda run: (run / "config.yaml").write_text(circle))
    yield _resume("a circle of aliases", lambda run: (run / "config.yaml").write_text(circle))


def _report(name: str, damage: Callable[[Path], Any], refused: bool | None = True) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        run = copied(stock.finished, place)
        damage(run)
        return [str(run)]

    return Case("runs: report", name, "report", prepare, refused)


def _resume(name: str, damage: Callable[[Path], Any], refused: bool | None = True) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        runs = copied(stock.unfinished, place)
        damage(runs / RUN)
        return [*stock.settings, f"run.folder={runs}", f"run.name={RUN}"]

    return Case("runs: resume", name, "run", prepare, refused, resumes=True)


def _evaluate(name: str, file: str, damage: Callable[[Path], Any]) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        run = copied(stock.unfinished, place) / RUN
        if file.startswith("evaluation"):
            (run / file).parent.mkdir(parents=True)
            (run / file).write_text("{}\n")
        damage(run / file)
        if file == "config.yaml":
            return [f"adapter={run / 'checkpoints' / 'latest'}", "n=1", "device=cpu", "reward.workers=1"]
        return [*stock.settings, f"run.folder={run.parent}", f"run.name={RUN}", "n=1", *_of(run)]

    return Case("runs: evaluate", name, "evaluate", prepare, None, resumes=True)


def _of(run: Path) -> list[str]:
    return [f"adapter={run / 'checkpoints' / 'latest'}"]


def _sweep(name: str, damage: Callable[[Path], Any], refused: bool | None) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        folder = write_sweep(place / "sweep", {"r8": {"rank": 8, "updates": 2}, "r64": {"rank": 64, "updates": 2}})
        damage(folder / "sweep.json")
        return [str(folder)]

    return Case("runs: report", name, "report", prepare, refused)


def _result(name: str, damage: Callable[[Path], Any]) -> Case:
    def prepare(place: Path, stock: Stock) -> list[str]:
        run = copied(stock.finished, place)
        damage(run)
        return [str(run)]

    return Case("runs: result", name, "result", prepare)


def _on(file: str, damage: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda run: damage(run / file)


def _in_json(file: str, path: str, value: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        document = json.loads((run / file).read_text())
        parts = [part.replace("~", "/") for part in path.split("/")]
        inner = document
        for part in parts[:-1]:
            inner = inner[int(part)] if isinstance(inner, list) else inner[part]
        inner[int(parts[-1]) if isinstance(inner, list) else parts[-1]] = value
        (run / file).write_text(json.dumps(document))

    return damage


def _in_yaml(path: str, value: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        document = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(changed(document, path, value)))

    return damage


def _add(file: str, row: str) -> Callable[[Path], None]:
    return lambda run: _line(run / file, row)


def _line(file: Path, row: str) -> None:
    with file.open("a") as lines:
        lines.write(row + "\n")


def _summary(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def put(run: Path) -> None:
        (run / "summary.json").write_text('{"status": "interrupted"}\n')
        damage(run / "summary.json")

    return put


__all__ = ["an_object", "cases", "shutil"]

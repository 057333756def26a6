"""The interface from Python: what it makes of its arguments, what it refuses, and its reference page.

`python -m tests.launch.test_api > docs/reference/python.md` writes the page.
"""

import asyncio
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy
import pytest

import microbudget_rl as mb
from microbudget_rl.conf.load import read_value
from microbudget_rl.launch import api
from microbudget_rl.rewards.pool import compared
from microbudget_rl.rewards.shipped import CALLER
from tests.conftest import ROOT
from tests.run_folders import write_run

ROWS = [{"problem": f"{a} + 1 =", "answer": a + 1} for a in range(60)]

LOCK = threading.Lock()


def page() -> str:
    """The reference page: signature and docstring of each name, and of what a person calls on a run."""
    names = {name: getattr(api, name) for name in (*mb.__all__, "Asked")}
    names |= {f"run.{name}": value for name, value in vars(api.Run).items() if not name.startswith("_")}
    introduction = "# Python\n\nAll of this is in `microbudget_rl`. This page is made from its docstrings.\n\n"
    parts = [introduction + f"{inspect.getdoc(api)}\n".split("\n", 2)[2]]
    for name, value in names.items():
        line = inspect.getsource(value).splitlines()[0].strip().partition("  #")[0]
        given = "" if isinstance(value, type) else f"    {line.removesuffix(':')}\n\n"
        text = "The same as `Run`." if name == "open" else inspect.getdoc(value)
        parts.append(f"## {name}\n\n{given}{text}\n")
    return re.sub(r"^(\w+): ", r"- `\1`: ", "\n".join(parts), flags=re.MULTILINE)


def settings_of(**asked: Any) -> dict[str, Any]:
    return {key: read_value(key, text) for key, text in (word.split("=", 1) for word in api._words({}, **asked))}


def test_the_page_is_that_of_the_docstrings():
    assert (ROOT / "docs" / "reference" / "python.md").read_text("utf-8") == page()


@pytest.mark.long
def test_an_import_is_light_and_a_plan_starts_nothing():
    program = (
        "import sys, microbudget_rl as mb; assert 'pydantic' not in sys.modules\n"
        "plan = mb.plan('gsm8k', device='4090', price_per_hour=0.5)\n"
        "print(plan.cost == plan.hours / 2, plan.updates > 1); assert 'Fits' in str(plan)\n"
        "print([name for name in ('ray', 'torch', 'vllm') if name in sys.modules])\n"
        "import os; from microbudget_rl.launch.__main__ import from_the_shell\n"
        "sys.argv[1:] = ['--version']; from_the_shell(); print(os.environ['RAY_DISABLE_FAILURE_SIGNAL_HANDLER'])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("True True\n[]\nmicrobudget-rl")
    assert said.endswith("\n1\n")


def test_rows_of_any_kind_are_one_file():
    import datasets
    import pandas

    frame = pandas.DataFrame(ROWS)
    [source] = {settings_of(problems=rows)["data.source"] for rows in (ROWS, frame, datasets.Dataset.from_list(ROWS))}
    lines = Path(source.removeprefix("file:")).read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert settings_of(problems=ROWS[1:])["data.source"] != source


def test_sources_and_presets_stay_paths_are_the_callers_and_parts_are_all_of_the_reward():
    assert settings_of(problems="sums.csv") == {"data.source": f"file:{Path('sums.csv').absolute()}"}
    assert settings_of(problems="hub:openai/gsm8k/main") == {"data.source": "hub:openai/gsm8k/main"}
    assert settings_of(reward="dapo") == {"reward.preset": "dapo"}
    found = settings_of(reward={compared: 0.5, "accuracy": 1, "mine:score": 2})
    assert [found[f"reward.{name}"] for name in api.WEIGHTS] == [1, 0.0, 0.0, 0.0]
    entries = [("microbudget_rl.rewards.pool:compared", 0.5), ("mine:score", 2.0)]
    assert [tuple(entry.values()) for entry in found["reward.custom"]] == entries
    assert settings_of(reward=["mine:score"]) == settings_of(reward="mine:score")


def test_values_of_numpy_and_paths_are_those_of_a_command_line():
    settings = {"lora.rank": numpy.int64(8), "run.folder": Path("elsewhere")}
    found = [*settings_of(problems=ROWS, minutes=numpy.float32(0.5), settings=settings).values()]
    assert found[:3] == [0.5, 8, "elsewhere"]
    assert "elsewhere" in found[3]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"problems": 5}, "problems"),
        ({"problems": ROWS}, "run.folder"),
        ({"reward": 5}, "reward"),
        ({"reward": lambda completions: LOCK}, "'lambda'"),
        ({"reward": [lambda samples: 0, lambda samples: 1]}, "def"),
        ({"settings": {"lora.rnk": 8}}, "lora.rank"),
        ({"settings": "lora.rank=8"}, "settings"),
        ({"settings": {"plan": True}}, "plan"),
        ({"minutes": 3, "settings": {"budget.minutes": 7}}, "budget.minutes=7"),
        ({"problem": ROWS}, "problems"),
    ],
)
def test_bad_input_is_refused_before_a_process_starts(asked: dict[str, Any], said: str):
    Path("runs").touch()  # nothing can be written there
    with pytest.raises(mb.BadInput, match=said):
        mb.train("mine", **asked)
    with pytest.raises(mb.BadInput, match="nowhere"):
        mb.open("nowhere")
    with api._busy, pytest.raises(mb.BadInput, match="another"):
        mb.train("mine")


@pytest.mark.parametrize("path", [None, 5, b"x", "mine"])
def test_without_a_path_and_a_working_folder_nothing_begins(path: Any, tmp_path: Path):
    run = mb.open(write_run(tmp_path / "mine"))
    shutil.rmtree(tmp_path)
    for call in (mb.open, mb.evaluate, run.export, mb.plan, mb.train):
        with pytest.raises(mb.BadInput):
            call(path)


def test_an_interrupt_ends_the_script_even_if_the_command_has_just_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "echo")
    monkeypatch.setattr(sys, "path", [*sys.path, Path()])
    with pytest.raises(RuntimeError):  # there is no run
        mb.train("mine")
    monkeypatch.setattr(api, "print", Mock(side_effect=KeyboardInterrupt), raising=False)
    with pytest.raises(KeyboardInterrupt):
        mb.train("mine")


@pytest.mark.long
def test_a_command_has_the_scripts_modules_and_no_terminal_and_refuses_in_its_own_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter does
    (beside := tmp_path / "scripts").mkdir()
    monkeypatch.syspath_prepend(beside)
    (beside / "beside.py").write_text("def score(completions): return [1.0 for _ in completions]")
    bad: Any = {"reward": importlib.import_module("beside").score, "problems": [{"problem": "1 + 1"}]}

    async def cell() -> None:
        mb.train("mine", **bad)

    with pytest.raises(mb.BadInput, match=r"^data.answer_field: .*problem"):
        asyncio.run(cell())
    with pytest.raises(mb.BadInput, match=r"reward\.custom"):
        mb.plan("mine", reward=lambda: 0)
    api._command("run.py", ["conf=mine", "plan=true", "device=cpu"])
    said = capsys.readouterr().out
    assert "Fits" in said
    assert "\x1b" not in said


def test_a_run_shows_what_its_folder_has(tmp_path: Path):
    run = mb.open(write_run(tmp_path / "mine"))
    assert [len(run.metrics), run.metrics[-1]["update"], run.summary.updates, run.adapter] == [40, 40, 40, None]
    assert {pair.outcome for pair in run.samples("worse")} <= {"right before, wrong after"}
    assert len(run.samples("all")) == 24
    assert run.plot()._repr_svg_().startswith("<svg")
    assert repr(run) in run._repr_markdown_()
    with pytest.raises(mb.BadInput, match=r"origin\.json"):  # which this one lacks
        run.resume()


def test_an_evaluation_measures_problems_and_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words: list[str] = []
    monkeypatch.setattr(api, "_command", lambda name, arguments, expected: words.extend(arguments))
    mb.evaluate(write_run(tmp_path / "mine"), ROWS, benchmarks="aime24", n=4)
    given = dict(word.split("=", 1) for word in words)
    assert [each[:5] for each in read_value("benchmarks", given["benchmarks"])] == ["file:", "aime2"]
    assert (given["n"], given["adapter"]) == ("4", str(tmp_path / "mine"))


@pytest.mark.long
def test_a_command_whose_caller_is_gone_ends():
    command = [sys.executable, "-m", "microbudget_rl.launch", "--version"]
    for caller, code in ((os.getpid(), 0), (1, 143)):
        assert subprocess.run(command, env=os.environ | {CALLER: str(caller)}, check=False).returncode == code


if __name__ == "__main__":
    print(page(), end="")

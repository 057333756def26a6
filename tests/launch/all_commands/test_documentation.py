"""Pages: blocks are carried out in order, lines and figures are the printed and measured ones, links lead somewhere."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from microbudget_rl.actors.evaluation.statistics import Difference, Mean
from microbudget_rl.conf.arguments import Options, run_and_options, words_and_options
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.help import page as settings_page
from microbudget_rl.conf.load import command_line, load
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.gallery.my_rewards import briefest, fields
from microbudget_rl.launch import export, samples, serve
from microbudget_rl.launch.__main__ import COMMANDS
from microbudget_rl.launch.checkup.signal import rule_for
from microbudget_rl.launch.doctor import OWN
from microbudget_rl.launch.plan import recipes
from microbudget_rl.launch.plan.measurements import Signal, Workload
from microbudget_rl.launch.plan.plan import count_problems
from microbudget_rl.launch.reporting.run_conclusion import Effect, _sentence
from microbudget_rl.launch.sweep_runs.grid import read_grid
from tests.actors.virtual_run import Run
from tests.conftest import ROOT

DOCS = ROOT / "docs"
FILES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PAGES = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in FILES}
USAGES = {name: importlib.import_module(module).__doc__ or "" for name, module in COMMANDS.items()}
MEASURED: dict[str, dict[str, Any]] = yaml.safe_load((DOCS / "measured.yaml").read_text("utf-8"))
BLOCK = re.compile(r"^```(\w*)\n([\s\S]*?)^```|((?<=\n\n)(?: {4}.*\n+)+)", re.MULTILINE)
OURS = re.compile(r"(\S*python|bash|microbudget|head|cp|cat|mkdir) (?!.*(\b[A-Z]{4,}\b| \[|…|\$))")
OPTIONS: dict[str, Options] = {each.__name__.rpartition(".")[2]: each.OPTIONS for each in (export, samples, serve)}
OPTIONS["chat"] = {"checkpoint": ()}
ROWS = "".join(f'{{"problem": "{n} + 7 =", "question": "{n} + 7 =", "answer": "{n + 7}"}}\n' for n in range(500))
TABLE = "problem,answer\n" + "".join(f"{n} + 7 =,{n + 7}\n" for n in range(500))
READERS = dict.fromkeys(("my.jsonl", "train.jsonl", "test.jsonl"), ROWS) | {"key.txt": "secret"}
READERS |= dict.fromkeys(("my.csv", "problems.csv", "general.csv"), TABLE)  # files that a reader has


HALF = Mean(0.5, (0.1, 0.9))
ANSWER = Signal(64, 16, dict.fromkeys(("pass@1", "pass@n", "useful", "groups"), HALF), Workload(1, 1, 1, 1, 1))
NUMBER = re.compile(r"\d[\d.,]*")
PRINTED = _sentence(Effect(HALF, HALF, 128, Difference(0.5, (0.1, 0.9), 0.0))), rule_for({}).sentence(ANSWER)
"""Lines of programs that no test carries out, with other numbers."""


def carry_out(line: str, used: dict[Path, str]) -> str:
    """Carry a command out up to its plan, or check its arguments. Return its output. used: command by run folder."""
    first, *words = shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", line).partition(" | ")[0])
    name, *arguments = words[words[:1] == ["-m"] :] if re.search("python$|^bash$|^microbudget$", first) else [first]
    if name == "launch/quickstart.sh":
        name, arguments = "run", ["conf=quickstart", *arguments]
    place, name = name, re.sub(r".*[./]", "", name.removesuffix(".py")).replace("_", "-")
    if name in ("run", "sweep") and not {"plan=true", "show=true", "help"} & {*arguments}:
        config = load(arguments) if name == "run" else None
        folder = Path(config.run.folder, config.run.name) if config else read_grid(arguments).folder
        assert used.setdefault(folder, line) == line or "overwrite=true" in line, f"{folder} has a run: {used[folder]}"
    elif name in OPTIONS:
        run_and_options(arguments, OPTIONS[name])
    elif name in ("report", "verify"):
        words_and_options(arguments, {"conf": ()})
    elif name == "doctor":
        load([each for each in arguments if each.partition("=")[0] not in OWN])
    elif name == "evaluate":
        kept = [each for each in arguments if not re.match("adapter=|base=", each)]
        kept += ["conf=quickstart"] * ("conf=" not in line)
        assert find_benchmarks(command_line(kept, CommandLine).benchmarks)
    elif first in ("head", "cp", "cat", "mkdir"):
        subprocess.run(line, shell=True, check=True)
    elif name not in COMMANDS:
        assert find_spec(place) if "-m" in words else (ROOT / place).exists(), line
    for file in re.findall(r"save=(\S+)", line):
        Path(file).write_text(ROWS)
    if name not in ("run", "sweep", "plan", "problems") or re.search("=/|hub:|save=|s3:", line):
        return ""
    if name != "problems" and "help" not in arguments:
        arguments += [each for each in ("plan=true", "device=cpu") if each.partition("=")[0] + "=" not in line]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as said:
        code = importlib.import_module(COMMANDS[name]).main(arguments)
    assert code == 0 or "Hub cannot be reached" in said.getvalue(), f"{line}: {said.getvalue()}"
    return " ".join(out.getvalue().split())


@pytest.mark.long
@pytest.mark.parametrize("page", [*PAGES, *USAGES])
def test_blocks_are_carried_out_in_their_order(page: str, monkeypatch: pytest.MonkeyPatch):
    for folder in ("conf/recipes", "docs/start/gallery"):
        shutil.copytree(ROOT / folder, folder)
    for file, rows in READERS.items():
        Path(file).write_text(rows)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    text, used, output = PAGES.get(page) or USAGES[page], dict[Path, str](), ""
    for found in BLOCK.finditer(text):
        language, block = found[1] or "", found[2] or found[3]
        named = re.findall(r"`([\w-]+\.\w+)`", text[: found.start()].rstrip().rpartition("\n\n")[2])
        lines = [line.strip().removeprefix("$ ") for line in re.sub(r"(^|\s+)# .*", "", block, flags=re.M).splitlines()]
        if language == "python":
            compile(block, page, "exec")
        if named and named[-1] not in READERS and not any(map(OURS.match, lines)):
            with open(named[-1], "a") as written:
                written.write(block)
        for line in lines if language in ("", "sh", "bash", "console") else ():
            for command in filter(OURS.match, re.split("&& *|; ", line)):
                output = carry_out(command.strip(), used)
            assert not line.startswith("Fits") or line in output
            if line.startswith(("It learned", "Worth it")):
                assert NUMBER.sub("1", line) in [NUMBER.sub("1", " ".join(printed.split())) for printed in PRINTED]
    assert page != "README.md" or len({*re.findall("^    (Fits|It learned|Worth it)", text, re.MULTILINE)}) == 3


@pytest.mark.parametrize("figure", MEASURED)
def test_a_figure_stands_on_its_pages_alone_and_word_for_word(figure: str):
    known = MEASURED[figure]
    assert known.keys() == {"text", "commit", "machine", "command", "seeds", "pages"}
    assert {page for page, text in PAGES.items() if known["text"] in " ".join(text.split())} == {*known["pages"]}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    """`mkdocs build --strict` looks at the headings that are linked to."""
    targets = re.findall(r"\]\((?!https?:|\.\./\.\./actions|#)([^)#]*)", PAGES[page])
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


@pytest.mark.parametrize(
    ("name", "page"), [("settings", settings_page), pytest.param("recipes", recipes.page, marks=pytest.mark.long)]
)
def test_generated_pages_are_of_this_commit(name: str, page: Callable[[], str]):
    """`python -m conf.help` and `python -m launch.plan.recipes` print them."""
    assert PAGES[f"docs/reference/{name}.md"] == page()


def test_every_metric_of_a_run_is_explained(tmp_path: Path):
    virtual = Run(tmp_path / "run")
    virtual.go()
    keys = {f"`{key}`" for row in virtual.rows for key in row if not key.startswith("ledger/")}
    assert [key for key in keys if key not in PAGES["docs/reference/metrics.md"]] == []


@pytest.mark.parametrize("recipe", sorted(path.name for path in (DOCS / "start" / "gallery").glob("*.yaml")))
def test_a_recipe_of_the_gallery_is_on_its_page_and_holds_out_enough(recipe: str):
    config = load([f"conf={DOCS}/start/gallery/{recipe}"])
    assert f"python launch/run.py conf=docs/start/gallery/{recipe}\n" in PAGES["docs/start/gallery.md"]
    assert config.budget.seconds <= 15 * 60
    if config.data.source.startswith("file:"):  # a generator takes its time
        found = count_problems(config)
        assert found and (found.heldout, found.train >= 200) == (config.eval.problems, True)  # noqa: PT018


def test_reward_functions_of_the_gallery():
    person = {"name": "Ann", "age": 34, "city": "Rome"}
    responses = [json.dumps(person | other) for other in ({}, {"age": "34"}, {"country": "Italy"})]
    assert [fields("", said, json.dumps(person)) for said in (*responses, "[" * 100_000)] == [1.0, 0.75, 0.0, 0.0]
    texts = ["so it is \\boxed{7}", "\\boxed{7}", "\\boxed{8}", "it is \\boxed{7}", "\\boxed{7}"]
    assert briefest([SimpleNamespace(response=text, gold="7") for text in texts]) == [0.25, 1.0, 0.0, 0.5, 1.0]

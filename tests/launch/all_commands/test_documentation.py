"""README and docs: the arguments of every command are understood, every link leads somewhere."""

import importlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from microbudget_rl.conf.arguments import run_and_options, words_and_options
from microbudget_rl.conf.catalogue import benchmarks, find_benchmarks
from microbudget_rl.conf.help import explain
from microbudget_rl.conf.help import page as settings_page
from microbudget_rl.conf.load import command_line, load
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.launch import export, push, run, samples, serve
from microbudget_rl.launch.doctor import OWN
from microbudget_rl.launch.plan import recipes
from microbudget_rl.launch.plan.choice import for_each_gpu
from microbudget_rl.launch.sweep_runs.grid import read_grid
from tests.actors.virtual_run import Run
from tests.conftest import ROOT
from tests.launch.all_commands.test_help import COMMANDS

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "AGENTS", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def commands(text: str) -> Iterator[str]:
    """Yield the lines of the blocks that are indented or fenced as commands, without their comments."""
    fence = ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = "" if fence else line.strip()
        elif line.startswith("    ") and not fence and (code := line.strip()) and not code.startswith("#"):
            yield from (part.strip() for part in re.split("&&|; ", re.sub(r"\s+# .*", "", code)))


def called() -> list[str]:
    """Return every command of this project in the pages, the notebook, and in what the commands say of themselves."""
    texts = [page.read_text("utf-8") for page in PAGES]
    texts += [importlib.import_module(module).__doc__ or "" for module in COMMANDS.values()]
    lines = [line for text in texts for line in commands(text)]
    lines = [re.sub(r"^[A-Z_]+=\S+ ", "", line) for line in lines]  # settings of the environment
    return sorted({line for line in lines if re.match(r"(\S*python|bash) ", line)})


def evaluates(arguments: list[str]) -> None:
    kept = [argument for argument in arguments if not argument.startswith("adapter=")]
    recipe = [] if any(argument.startswith("conf=") for argument in kept) else ["conf=quickstart"]
    assert find_benchmarks(command_line([*recipe, *kept], CommandLine).benchmarks)


def shows_problems(arguments: list[str]) -> None:
    source, *settings = (argument for argument in arguments if not argument.startswith("save="))
    source = benchmarks()[source].source if len(settings) < len(arguments) - 1 and source in benchmarks() else source
    recipe = [] if any(setting.startswith("conf=") for setting in settings) else ["conf=base"]
    load([*recipe, f"data.source={source}", *settings])


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "launch/run.py": lambda arguments: [
        command_line(one, CommandLine) for one in for_each_gpu(arguments) or [arguments]
    ],
    "launch/sweep.py": read_grid,
    "launch/evaluate.py": evaluates,
    "launch/report.py": lambda arguments: words_and_options(arguments, {}),
    "launch/samples.py": lambda arguments: run_and_options(arguments, samples.OPTIONS),
    "launch/export.py": lambda arguments: run_and_options(arguments, export.OPTIONS),
    "launch/push.py": lambda arguments: run_and_options(arguments, push.OPTIONS),
    "launch/chat.py": lambda arguments: run_and_options(arguments, {"checkpoint": ()}),
    "launch/serve.py": lambda arguments: run_and_options(arguments, serve.OPTIONS),
    "launch/doctor.py": lambda arguments: load([each for each in arguments if each.partition("=")[0] not in OWN]),
    "launch/quickstart.sh": lambda arguments: load(["conf=quickstart", *arguments]),
    "rewards.problems": shows_problems,
    "rewards.verify": lambda arguments: words_and_options(arguments, {"conf": ()}),
}


@pytest.mark.parametrize("line", [line for line in called() if not re.search(r"NAME|FOLDER|FILE|SOURCE| \[|…", line)])
def test_a_command_is_as_it_is_written(line: str) -> None:
    for folder in ("conf/recipes", "docs/start/gallery"):
        shutil.copytree(ROOT / folder, folder)
    _, *words = shlex.split(line.partition("|")[0])
    module = words[0] == "-m"
    name, *arguments = words[module:]
    if "help" in arguments and name in PARSERS:
        explain(arguments, "")
    elif name in PARSERS:
        PARSERS[name](arguments)
    else:
        assert find_spec(name) if module else (ROOT / name).exists()


def test_reward_functions_of_the_page_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "how-to" / "rewards.md").read_text("utf-8")
    Path("my_rewards.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(Path.cwd())  # the checkout may have a user's own module of this name
    shutil.copy(ROOT / "conf" / "recipes" / "mine.csv", "my.csv")
    (line,) = (line for line in called() if "my_rewards:is_json" in line)
    assert run.main([*shlex.split(line)[2:], "device=cpu"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """`mkdocs build --strict` looks at the headings that are linked to."""
    targets = re.findall(r"\]\((?!https?:|\.\./\.\./actions|#)([^)#]*)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(
    ("name", "page"), [("settings", settings_page), pytest.param("recipes", recipes.page, marks=pytest.mark.long)]
)
def test_generated_pages_are_of_this_commit(name: str, page: Callable[[], str]) -> None:
    """`python -m conf.help` and `python -m launch.plan.recipes` print them."""
    assert (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8") == page()


def test_every_metric_of_a_run_is_explained(tmp_path: Path) -> None:
    virtual = Run(tmp_path / "run")
    virtual.go()
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    keys = {key for row in virtual.rows for key in row}
    assert {key for key in keys if f"`{key}`" not in text and not key.startswith("ledger/")} == set()

"""README and docs: the arguments of every command are understood, every link leads somewhere."""

import html
import importlib
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.models.files import load_tokenizer, locate
from conf.arguments import run_and_options, words_and_options
from conf.catalogue import benchmarks, find_benchmarks
from conf.help import explain
from conf.load import command_line, load
from conf.pages import settings_page
from conf.schema import CommandLine
from launch import export, push, run, samples, serve
from launch.plan import recipes
from launch.sweep_runs.grid import read_grid
from rewards.problems.chat import render_prompt
from tests.actors.virtual_run import Run
from tests.conftest import ROOT
from tests.launch.all_commands.test_help import COMMANDS

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "AGENTS", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

NOTEBOOK = ROOT / "docs" / "start" / "quickstart.ipynb"


REWARDS = (ROOT / "docs" / "how-to" / "rewards.md").read_text("utf-8").partition("```python\n")[2].partition("```")[0]
"""The reward functions that the pages write."""

SETTING = re.compile(r"[A-Z][A-Z_]*=\S+ ")
"""Of the environment, before a command."""


def commands(text: str) -> Iterator[str]:
    """Yield the lines of the blocks that are indented or fenced as commands, without their comments."""
    fence = ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = "" if fence else line.strip()
        elif line.startswith("    ") and not fence and (code := line.strip()) and not code.startswith("#"):
            yield from (part.strip() for part in re.sub(r"\s+# .*", "", code).split("&&"))


def cells(kind: str) -> list[dict[str, Any]]:
    """Return the notebook's cells of a kind, code or markdown."""
    return [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def notebook_commands() -> list[str]:
    """Return what the notebook has a shell do with its first task."""
    lines = (line.strip() for cell in cells("code") for line in cell["source"])
    named = {"REPOSITORY": "", "TASK": "quickstart", "RUN": "notebook-quickstart"}
    return [line.removeprefix("!").format(**named) for line in lines if line.startswith("!")]


def called() -> list[str]:
    """Return every command of this project in the pages, the notebook, and in what the commands say of themselves."""
    texts = [page.read_text("utf-8") for page in PAGES]
    texts += [importlib.import_module(module).__doc__ or "" for module in COMMANDS.values()]
    lines = [*(line for text in texts for line in commands(text)), *notebook_commands()]
    return sorted({SETTING.sub("", line) for line in lines if re.match(r"(\S*python|bash) ", SETTING.sub("", line))})


def carry_out_run(arguments: list[str]) -> None:
    if "help" in arguments:
        explain(arguments, "")
    else:
        command_line(arguments, CommandLine)


def carry_out_sweep(arguments: list[str]) -> None:
    assert explain(arguments, "") is None if "help" in arguments else read_grid(arguments).runs


def carry_out_evaluate(arguments: list[str]) -> None:
    kept = [argument for argument in arguments if not argument.startswith("adapter=")]
    recipe = [] if any(argument.startswith("conf=") for argument in kept) else ["conf=quickstart"]
    assert find_benchmarks(command_line([*recipe, *kept], CommandLine).benchmarks)


def carry_out_script(arguments: list[str]) -> None:
    script, *rest = arguments
    assert (ROOT / script).exists()
    if script == "launch/quickstart.sh":
        load(["conf=quickstart", *rest])


def carry_out_problems(arguments: list[str]) -> None:
    source, *settings = (argument for argument in arguments if not argument.startswith("save="))
    source = benchmarks()[source].source if len(settings) < len(arguments) - 1 and source in benchmarks() else source
    recipe = [] if any(setting.startswith("conf=") for setting in settings) else ["conf=base"]
    load([*recipe, f"data.source={source}", *settings])


def carry_out_module(arguments: list[str]) -> None:
    module, *names = arguments
    place = ROOT / module.replace(".", "/")
    if (main := place / "__main__.py").exists():
        assert all((place / f"{name}.py").exists() or f'"{name}"' in main.read_text() for name in names[:1])
    else:
        assert place.with_suffix(".py").exists() or module in ("pytest", "mypy")


CARRIED_OUT: dict[str, Callable[[list[str]], object]] = {
    "launch/run.py": carry_out_run,
    "launch/sweep.py": carry_out_sweep,
    "launch/evaluate.py": carry_out_evaluate,
    "launch/report.py": lambda arguments: words_and_options(arguments, {}),
    "launch/samples.py": lambda arguments: run_and_options(arguments, samples.OPTIONS),
    "launch/export.py": lambda arguments: run_and_options(arguments, export.OPTIONS),
    "launch/push.py": lambda arguments: run_and_options(arguments, push.OPTIONS),
    "launch/chat.py": lambda arguments: run_and_options(arguments, {"checkpoint": ()}),
    "launch/serve.py": lambda arguments: run_and_options(arguments, serve.OPTIONS),
    "launch/doctor.py": lambda arguments: load([each for each in arguments if "measure" not in each]),
    "rewards.problems": carry_out_problems,
    "rewards.verify": lambda arguments: words_and_options(arguments, {"conf": ()}),
}


@pytest.mark.parametrize("line", [line for line in called() if not re.search(r"NAME|FOLDER|FILE|SOURCE| \[|…", line)])
def test_a_command_is_as_it_is_written(line: str) -> None:
    for folder in ("conf/recipes", "docs/start/gallery"):
        shutil.copytree(ROOT / folder, folder)
    program, *words = shlex.split(line.partition("|")[0])
    if program == "bash":
        carry_out_script(words)
        return
    if words[0] == "-m" and words[1] not in CARRIED_OUT:
        carry_out_module(words[1:])
        return
    name, arguments = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
    assert name in CARRIED_OUT or (ROOT / name).exists()
    CARRIED_OUT.get(name, lambda _: None)(arguments)


def test_reward_functions_of_the_page_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(Path.cwd())  # the checkout may have a user's own module of this name
    shutil.copy(ROOT / "conf" / "recipes" / "mine.csv", "my.csv")
    (line,) = (line for line in called() if "my_rewards:is_json" in line)
    assert run.main([*shlex.split(line)[2:], "device=cpu"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """`mkdocs build --strict` looks at the headings that are linked to."""
    targets = re.findall(r"\]\((?!https?:|\.\./\.\./actions|#)([^)#]*)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_notebook_is_stored_without_results() -> None:
    """What was true of one machine and one version would stand there as if it were true of all."""
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
    assert "bash launch/setup.sh" in notebook_commands()
    assert [line for line in notebook_commands() if "/work" in line or "http" in line] == []


def test_the_repository_has_one_address() -> None:
    """That of pyproject.toml; without one, a word stands for it that a reader replaces."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    address = project["urls"].get("Repository", "THIS-REPOSITORY")
    for page in ("README.md", "docs/start/install.md", "docs/start/first-gpu-run.md", "docs/start/quickstart.ipynb"):
        text = (ROOT / page).read_text("utf-8")
        found = re.findall(r"git clone ([^\s{]+)|REPOSITORY = \\\"(\S+)\\\"", text)
        assert {cloned or named for cloned, named in found} == {address}, page
    cited = re.findall(r"^repository-code: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert cited == ([address] if "Repository" in project["urls"] else [])


@pytest.mark.parametrize(
    ("name", "page"), [("settings", settings_page), pytest.param("recipes", recipes.page, marks=pytest.mark.long)]
)
def test_generated_pages_are_of_this_commit(name: str, page: Callable[[], str]) -> None:
    """`python -m conf.pages settings` and `python -m launch.plan.recipes` print them."""
    assert (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8") == page()


def test_pages_and_pictures_show_one_run() -> None:
    """`python -m tests.pictures` makes the pictures and quickstart.json of one run."""
    images = ROOT / "docs" / "images"
    run = json.loads((images / "quickstart.json").read_text("utf-8"))
    text = html.unescape(" ".join(re.findall(r"<text[^>]*>(.*?)</text>", (images / "console.svg").read_text("utf-8"))))
    shown = " ".join(text.split())
    for page in (ROOT / "README.md", ROOT / "docs" / "start" / "quickstart.md"):
        assert run["conclusion"].removesuffix(".") in " ".join(page.read_text("utf-8").split()), page
    assert run["conclusion"] in shown
    assert f"after {run['updates'][0]} updates" in shown


def test_every_metric_of_a_run_is_explained(tmp_path: Path) -> None:
    virtual = Run(tmp_path / "run")
    virtual.go()
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    keys = {key for row in virtual.rows for key in row}
    assert {key for key in keys if f"`{key}`" not in text and not key.startswith("ledger/")} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=lambda page: page.name)
def test_headings_that_a_page_outside_docs_links_to_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]*)\)", page.read_text("utf-8")):
        text = (page.parent / target if target else page).read_text("utf-8")
        headings = {re.sub(r"[^\w\- ]", "", head.lower()) for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
        assert anchor in {head.replace(" ", "-") for head in headings}


def test_the_ci_names_tests_that_exist() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    (file,) = re.findall(r"^engine=(\S+)$", script, re.MULTILINE)
    names = re.findall(r"\$engine::(\w+)", script)
    assert len(names) == 3
    assert [name for name in names if f"def {name}(" not in (ROOT / file).read_text("utf-8")] == []


def test_prompts_on_the_page_are_those_of_the_recipes() -> None:
    page, bundled = (ROOT / "docs" / "how-to" / "prompts.md").read_text("utf-8"), load(["conf=quickstart"]).model
    rendered = re.findall(r'`conf=(\w+)`, .*?"(.*?)":\n\n```text\n(.*?)```', page, re.DOTALL)
    tokenizer = load_tokenizer(locate(bundled), bundled.path)
    assert len(rendered) == page.count("```text")
    for recipe, problem, shown in rendered:
        made = render_prompt([], " ".join(problem.split()), load([f"conf={recipe}"]).data, tokenizer)
        message = made.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
        assert (recipe, shown) in ((recipe, made), (recipe, f"{message}\n"))

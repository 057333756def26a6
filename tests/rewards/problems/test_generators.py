"""Which of reasoning_gym's generators run the model's answer: found by attacking them, and by reading them."""

import ast
import inspect
import json
import subprocess
import sys
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import pytest
from reasoning_gym.factory import DATASETS

from conf.errors import BadInput
from conf.schema import Config
from conf.settings import changed
from rewards.generators import REFUSED, RUN_THE_ANSWER
from rewards.problems.loading import load

EVALUATORS = {
    "eval", "exec", "__import__", "import_module", "run_path", "system", "popen", "Popen", "getattr",
    "S", "sympify", "parse_expr", "parse_latex", "simplify", "nsimplify", "expand", "solve", "lambdify",
}  # fmt: skip
"""Functions that run a string they are given. `ast.literal_eval` and `json.loads` do not."""

OF_ITS_OWN = {"bitwise_arithmetic": {"eval(problem)"}, "number_sorting": {"eval(entry['answer'])"}}
"""What generators evaluate that they have written themselves."""

PASSES_ON = {"composite"}
"""Generators whose scoring is another's."""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bool]]:
    """What the attack on every generator came to, by name."""
    folder = tmp_path_factory.mktemp("attack")
    subprocess.run([sys.executable, "-m", "tests.rewards.problems.attack", "found.json"], check=True, cwd=folder)
    return json.loads((folder / "found.json").read_text())


def test_no_generator_but_the_refused_ones_runs_the_answer(attacked: dict[str, dict[str, bool]]) -> None:
    assert attacked.keys() == DATASETS.keys()
    assert {name for name, found in attacked.items() if found["evaluates"]} <= RUN_THE_ANSWER


def test_every_refused_generator_runs_the_answer(attacked: dict[str, dict[str, bool]]) -> None:
    assert {name for name, found in attacked.items() if found["touches"]} == RUN_THE_ANSWER


def test_no_generator_but_the_refused_ones_reads_as_if_it_ran_the_answer() -> None:
    evaluating = {name for name in DATASETS if evaluations(name) - OF_ITS_OWN.get(name, set())}
    assert evaluating == RUN_THE_ANSWER - PASSES_ON
    assert all(evaluations(name) == own for name, own in OF_ITS_OWN.items())


@pytest.mark.parametrize("key", ["source", "eval_source"])
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_sets_that_cannot_be_scored_are_refused(name: str, key: str, byte_tokenizer: Any) -> None:
    config = changed(Config(), {f"data.{key}": f"reasoning_gym:{name}"})
    with pytest.raises(BadInput) as refused:
        load(config, byte_tokenizer)
    assert all(words in str(refused.value) for words in (f"data.{key}", name, REFUSED[name], "file:"))


def test_no_refused_generator_is_suggested(byte_tokenizer: Any) -> None:
    config = changed(Config(), {"data.source": "reasoning_gym:count_down"})
    with pytest.raises(BadInput) as refused:
        load(config, byte_tokenizer)
    assert not [name for name in REFUSED if name in str(refused.value)]


def evaluations(name: str) -> set[str]:
    """Calls of EVALUATORS, as they are written, in a generator's `score_answer` and in whatever of reasoning_gym that
    calls.
    """
    score = DATASETS[name][0].score_answer
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(sys.modules[score.__module__], score.__name__)]
    while waiting:
        module, function = waiting.pop()
        if (module.__name__, function) in seen:
            continue
        seen.add((module.__name__, function))
        for node in functions(module)[function]:
            for used in references(node):
                if (place := home(module, used)) is not None:
                    waiting.append((place, used))
                elif used in EVALUATORS:
                    found |= spelled(node, used)
    return found


@cache
def functions(module: ModuleType) -> dict[str, list[ast.AST]]:
    """The functions and methods that a module defines, by name."""
    by_name: dict[str, list[ast.AST]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef):
            by_name.setdefault(node.name, []).append(node)
    return by_name


def references(function: ast.AST) -> set[str]:
    """Names of all that a function may call: also of what it passes on, as in `map(eval, …)`."""
    return {name for node in ast.walk(function) if (name := last_name(node))}


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c`; empty for what has no name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def home(module: ModuleType, name: str) -> ModuleType | None:
    """The module of reasoning_gym that defines the function which another one calls by this name."""
    if name in functions(module):
        return module
    imported = getattr(module, name, None)
    of_the_package = isinstance(imported, FunctionType) and imported.__module__.startswith("reasoning_gym.")
    return sys.modules[imported.__module__] if of_the_package else None


def spelled(function: ast.AST, name: str) -> set[str]:
    """The calls of a name within a function, as they are written; the name itself where it is only passed on."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and last_name(node.func) == name]
    return {ast.unparse(call) for call in calls} or {name}

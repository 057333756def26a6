"""tests/private_apis.yaml, a list of other libraries' private names, against the libraries and the source code."""

import ast
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from sysconfig import get_path
from typing import Any

import pytest
import yaml

from microbudget_rl.actors.models.families import FUSED
from microbudget_rl.actors.runtime.process import VLLM_BUILDS, software_versions
from tests.conftest import ROOT

TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "tests/private_apis.yaml").read_text())
PUBLIC = {"_asdict", "_exit", "_replace"}
"""Names with an underscore that Python documents."""

ROWS = [row for rows in TABLE.values() for row in rows]


def test_every_name_in_the_list_is_in_its_files():
    for row in ROWS:
        for file in row["files"]:
            assert re.search(rf"\b{row['name'].rpartition('.')[2]}\b", (ROOT / file).read_text()), (row["name"], file)


def test_every_private_name_of_a_library_is_in_the_list():
    for room in ("actors", "conf", "launch", "learner", "rewards"):
        for path in (ROOT / room).rglob("*.py"):
            file = str(path.relative_to(ROOT))
            listed = {part for row in ROWS if file in row["files"] for part in row["name"].split(".")}
            assert foreign_private_names(path.read_text()) <= listed, file


def foreign_private_names(source: str) -> set[str]:
    """Return the names with an underscore that a file imports, or reads from what is not its own."""
    nodes, found = [*ast.walk(ast.parse(source))], set[str]()
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module != "_thread":
            found |= {*str(node.module).split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            of_class = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if of_class else found).add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")} - own - PUBLIC


@pytest.mark.parametrize("library", [key for key, rows in TABLE.items() if not any(row.get("cuda") for row in rows)])
def test_the_list_is_about_the_installed_versions(library: str):
    name, stated = library.split()
    installed = software_versions(VLLM_BUILDS).values() if name == "vllm" else [version(name)]
    assert all(f"{each}.".replace("+", ".").startswith(f"{stated}.") for each in installed)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.get("cuda")], ids=lambda row: row["name"])
def test_a_private_name_is_as_we_use_it(row: dict[str, Any]):
    check(row)


def check(row: dict[str, Any]) -> None:
    if within := row.get("within"):
        assert row.get("text", row["name"]).encode() in Path(get_path("purelib"), within).read_bytes()
        return
    found, call = resolve_name(row["name"]), row.get("call")
    ours = [each for file in row["files"] for each in calls(row["name"].rpartition(".")[2], (ROOT / file).read_text())]
    assert ours or call != "ours"
    for each in ours if call == "ours" else calls("f", f"f{call}") if call else ():
        itself = [found] if call == "ours" and inspect.isfunction(found) and "." in found.__qualname__ else []
        for function in [found[family] for family in FUSED] if isinstance(found, dict) else [found]:
            inspect.signature(function).bind(*itself, *each.args, **{str(k.arg): k.value for k in each.keywords})


def calls(name: str, source: str) -> list[ast.Call]:
    """Return the calls of a function, a method or a mapping's elements, under the name that an import gives it."""
    nodes = [*ast.walk(ast.parse(source))]
    imported = (alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names)
    names = {name, *(alias.asname for alias in imported if alias.name == name)}
    made = [node for node in nodes if isinstance(node, ast.Call)]
    return [call for call in made if ast.unparse(call.func).partition("[")[0].rpartition(".")[2] in names]

"""tests/private_apis.yaml, the list of other libraries' private names, against the libraries and the source code."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml

from actors.runtime.process import VLLM_BUILDS, software_versions
from tests.conftest import ROOT

TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "tests/private_apis.yaml").read_text())
ROWS = [row for rows in TABLE.values() for row in rows]

FOLDERS = ("actors", "conf", "launch", "learner", "rewards")

CLOSED = ("vllm", "deepspeed", "liger_kernel")
"""Libraries whose modules are private but for these:"""

DOCUMENTED = ("vllm", "vllm.lora.request", "vllm.sampling_params", "deepspeed", "deepspeed.utils")

PUBLIC = {
    *("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED", "RAY_USE_TLS", "__ray_call__", "__version__"),
    *("_exit", "_replace", *dir(type), *dir(dict), *dir(Exception())),
}
"""Variables of Ray and names with an underscore that are documented, or Python's own."""

PLUGIN = "actors/rollout/vllm_plugin.py"
"""All attributes that this file assigns are vLLM's."""

TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
}


def own_names() -> Iterator[str]:
    """Yield all names that the project itself gives to functions, classes, variables, arguments and attributes."""
    for node in (node for tree in TREES.values() for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name) | ast.arg(name):
                yield name
            case ast.Name(name, ast.Store()) | ast.Attribute(ast.Name("self"), name, ast.Store()):
                yield name


OWN = {*own_names()}


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that imports bind, and what these stand for, of other libraries than Python's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for alias in node.names:
                dotted = f"{module}.{alias.name}" if module else alias.name
                if dotted.partition(".")[0] not in (*FOLDERS, *sys.stdlib_module_names):
                    yield alias.asname or alias.name.partition(".")[0], dotted


def private_uses(file: str) -> Iterator[str]:
    """Yield the private names in a file: dotted from an import or a string, or an attribute alone."""
    bound = dict(imports(TREES[file]))
    for dotted in bound.values():
        module = dotted.rpartition(".")[0] or dotted
        if (module.startswith(CLOSED) and module not in DOCUMENTED) or "._" in dotted:
            yield dotted
    for node in ast.walk(TREES[file]):
        match node:
            case ast.Attribute(attr=str(name)) | ast.keyword(arg=str(name)) if name.startswith("_") and name not in OWN:
                yield name
            case ast.Constant(str(text)) if re.fullmatch(r"vllm(\.\w+)+|RAY_\w+", text):
                yield text
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            root = ast.unparse(node).partition(".")[0]
            if root in bound or file == PLUGIN:
                yield node.attr


def test_every_private_name_in_the_code_is_in_the_list() -> None:
    for file in TREES:
        listed = [row["name"] for row in ROWS if file in row["files"]]
        known = {*PUBLIC, *(part for name in listed for part in name.split("."))}
        unlisted = [use for use in private_uses(file) if use not in known]
        assert all(any(f"{name}.".startswith(f"{use}.") for name in listed) for use in unlisted), (file, unlisted)


def test_every_name_in_the_list_is_in_its_files() -> None:
    for row in ROWS:
        for file in row["files"]:
            assert re.search(rf"\b{row['name'].rpartition('.')[2]}\b", (ROOT / file).read_text()), (row["name"], file)


@pytest.mark.parametrize("library", [key for key, rows in TABLE.items() if not any(row.get("cuda") for row in rows)])
def test_the_list_is_about_the_installed_versions(library: str) -> None:
    name, stated = library.split()
    installed = software_versions(VLLM_BUILDS).values() if name == "vllm" else [version(name)]
    assert all(f"{each}.".replace("+", ".").startswith(f"{stated}.") for each in installed)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.get("cuda")], ids=lambda row: row["name"])
def test_a_private_name_is_as_we_use_it(row: dict[str, Any]) -> None:
    check(row)


def check(row: dict[str, Any]) -> None:
    if within := row.get("within"):
        package = find_spec(within.partition("/")[0])
        assert package is not None
        assert package.origin
        assert row.get("text", row["name"]).encode() in (Path(package.origin).parents[1] / within).read_bytes()
        return
    if row["name"].startswith("torch.ops"):
        resolve_name("vllm.platforms.current_platform").import_kernels()
    found = resolve_name(row["name"])
    if call := row.get("call"):
        parsed = ast.parse(f"f{call}", mode="eval").body
        assert isinstance(parsed, ast.Call)
        inspect.signature(found).bind(*parsed.args, **{str(each.arg): each.value for each in parsed.keywords})

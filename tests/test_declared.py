"""The packages that the code imports, and those that pyproject.toml declares."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"microbudget_rl", "tests"}
NOT_HERE = {"fla": "flash-linear-attention"}
"""Packages by what they import, where the names differ and the CPU build lacks them."""

BENCH = "trl"
"""Its bench installs it."""


def declared(*without: str) -> set[str]:
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in without}
    lines = [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imported(*folders: str) -> set[str]:
    """Return the packages that files import, wherever in the file, without Python's own and ours."""
    listing = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set[str]()
    for file in (line for line in listing.stdout.splitlines() if line.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
    installed = packages_distributions()
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - OURS
    return {canonicalize_name(installed.get(name, [NOT_HERE.get(name, name)])[0]) for name in foreign}


@pytest.mark.parametrize(
    ("folders", "packages"),
    [
        (("actors", "conf", "launch", "learner", "rewards", "docs"), declared("dev")),
        (("tests",), declared() | {BENCH}),
    ],
)
def test_every_imported_package_is_declared(folders: tuple[str, ...], packages: set[str]) -> None:
    found = imported(*folders)
    assert len(found) > 20
    assert found - packages == set()

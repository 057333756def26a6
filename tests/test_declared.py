"""The packages that the code imports, and those that pyproject.toml declares."""

import sys
import tomllib
from importlib.metadata import packages_distributions

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_HERE = {"fla": ["flash-linear-attention"]}
"""Packages by what they import, which the CPU build lacks."""

BENCH = "trl"
"""Its bench installs it."""


def declared(*without: str) -> set[str]:
    extras = [lines for name, lines in PROJECT["optional-dependencies"].items() if name not in without]
    return {canonicalize_name(Requirement(line).name) for line in sum(extras, PROJECT["dependencies"])}


@pytest.mark.parametrize(
    ("ours", "packages"), [("microbudget_rl", declared("dev")), ("tests", declared() | {BENCH, "microbudget-rl"})]
)
def test_every_imported_package_is_declared(ours: str, packages: set[str]):
    graph = grimp.build_graph(ours, include_external_packages=True, cache_dir=None)
    modules = {name.partition(".")[0] for name in graph.modules} - sys.stdlib_module_names - {ours}
    known = packages_distributions() | NOT_HERE
    found = {canonicalize_name(known.get(name, [name])[0]) for name in modules}
    assert len(found) > 20
    assert found - packages == set()

"""tests/private_apis.yaml, a list of other libraries' private names, against the libraries and the source code."""

import ast
import inspect
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml

from microbudget_rl.actors.runtime.process import VLLM_BUILDS, software_versions
from tests.conftest import ROOT

TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "tests/private_apis.yaml").read_text())
ROWS = [row for rows in TABLE.values() for row in rows]


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
    found = resolve_name(row["name"])
    if call := row.get("call"):
        parsed = ast.parse(f"f{call}", mode="eval").body
        assert isinstance(parsed, ast.Call)
        inspect.signature(found).bind(*parsed.args, **{str(each.arg): each.value for each in parsed.keywords})

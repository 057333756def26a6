"""All tools see all packages through the links in `microbudget_rl`; each of them would pass silently without."""

import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list
from mypy.options import Options

from tests.conftest import ROOT

FOLDERS = ("actors", "conf", "launch", "learner", "rewards")
FILES = [file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
MODULES = {".".join(["microbudget_rl", *file.with_suffix("").parts]).removesuffix(".__init__") for file in FILES}


def test_mypy_and_import_contracts_see_all_modules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    options = Options()
    parse_config_file(options, lambda: None, "pyproject.toml")
    assert {source.module for source in create_source_list(options.files or [], options)} >= MODULES
    # Else a module that mypy does not find would be Any, and every call of it right.
    assert not options.clone_for_module("microbudget_rl.actors.messages").ignore_missing_imports
    assert grimp.build_graph("microbudget_rl", cache_dir=None).modules >= MODULES


def test_the_folders_cannot_be_imported_by_their_own_names():
    lines = "".join(f"import {name}.messages\nfrom {name} import messages\n" for name in FOLDERS)
    check = [Path(sys.executable).with_name("ruff"), "check", "--output-format=concise", "--stdin-filename=one.py", "-"]
    done = subprocess.run(check, cwd=ROOT, input=lines, capture_output=True, text=True)
    assert done.stdout.count("TID251") == 2 * len(FOLDERS)

"""The wheel, installed outside of the repository. What it depends on is taken from the environment of the tests."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def microbudget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of a wheel in a virtual environment that has nothing else of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", ".*_cache", "build", "*.egg-info", "tests")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, timeout=250)
    shutil.rmtree(source)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    # Isolated from PYTHONPATH, where the checkout's own egg-info makes pip think that the wheel is there.
    subprocess.run([python, "-I", "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    (site,) = (environment / "lib").glob("python3.*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "microbudget"


def call(microbudget: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [microbudget, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=540
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_recipes_are_in_it(microbudget: Path, tmp_path: Path) -> None:
    assert "run " in call(microbudget, tmp_path, "help")
    assert "paper" in call(microbudget, tmp_path, "run", "help")
    assert "memory" in call(microbudget, tmp_path, "run", "conf=quickstart", "plan=true").lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_run_is_made_here(microbudget: Path, tmp_path: Path) -> None:
    short = ("budget.updates=2", "budget.minutes=8", "eval.problems=16")
    call(microbudget, tmp_path, "run", "conf=quickstart", "dashboard.port=0", *short)
    assert json.loads((tmp_path / "runs" / "quickstart" / "summary.json").read_text())["updates"] == 2
    assert "<svg" in (tmp_path / "runs" / "quickstart" / "report.html").read_text()
    assert "library_name: peft" in call(microbudget, tmp_path, "push", "runs/quickstart", "to=me/mine", "dry_run=true")

"""The wheel, installed outside of the repository. Its dependencies come from the environment of the tests."""

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
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", ".*_cache", "build", "*.egg-info", "tests", "site")
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


@pytest.mark.slow
def test_wheel_runs_and_pushes_from_any_folder(microbudget: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*arguments: str) -> str:
        ended = subprocess.run(
            [microbudget, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=540
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    (site,) = microbudget.parents[1].glob("lib/python3.*/site-packages")
    assert {file.parent.name for file in site.glob("*/py.typed")} >= {"actors", "conf", "launch", "learner", "rewards"}
    assert "run " in call("help")
    assert "paper" in call("run", "help")
    assert "memory" in call("run", "conf=quickstart", "plan=true").lower()
    assert list(tmp_path.iterdir()) == []
    short = ("budget.updates=2", "budget.minutes=8", "eval.problems=16")
    call("run", "conf=quickstart", "dashboard.port=0", *short)
    run = tmp_path / "runs" / "quickstart"
    assert json.loads((run / "summary.json").read_text())["updates"] == 2
    assert "<svg" in (run / "report.html").read_text()
    assert "library_name: peft" in call("push", "runs/quickstart", "to=me/mine", "dry_run=true")

"""The wheel: what it installs, its commands without the packages of its extras, and a run outside of the repository."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest

from microbudget_rl.launch.__main__ import COMMANDS
from tests.conftest import ROOT
from tests.test_one_name import FOLDERS as NAMES

pytestmark = pytest.mark.slow

FOLDERS = {name: name for name in NAMES} | {"docs/start/gallery": "gallery"}
"""Folders of the clone, and their names in the package."""

BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"

HEAVY = (
    *("torch", "ray", "vllm", "transformers", "peft", "deepspeed", "datasets", "sympy", "math_verify", "matplotlib"),
    *("tensorboard", "numpy", "pandas", "pyarrow", "reasoning_gym", "huggingface_hub", "httpx2"),
)
PROGRAM = f"""
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
sys.modules.update(dict.fromkeys({HEAVY}))  # to import one of them is an error
from microbudget_rl.launch.__main__ import main
said = []
for line in sys.argv[1:]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(line.split())
    said.append((line, (code, out.getvalue(), err.getvalue())))
print(json.dumps(dict(said)))
"""
"""Program that prints the exit codes and outputs of commands, by command."""

PREVIEW = "problems file:mine.csv"
LIGHT = (
    *("help", PREVIEW, "plan conf=gsm8k device=4090 budget.price_per_hour=0.40", "plan help"),
    *("plan conf=docs/start/gallery/units.yaml", "plan conf=mixed_sums"),
)
REFUSED = {
    "run conf=quickstart": "cuda",
    "sweep conf=quickstart seeds=[0,1]": "cuda",
    "evaluate conf=quickstart benchmarks=[aime24]": "cuda",
    "doctor conf=quickstart": "cuda",
    "bundled to=model": "cuda",
    "problems hub:openai/gsm8k": "cuda",
    "verify answers.jsonl": "verify",
    "plan conf=gsm8k model.path=owner/name": "hub",
}
"""Commands, and the extra that each needs."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy without a network, and unpack it."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("unpacked")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("microbudget_rl", *FOLDERS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(copy)], cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("*.whl")
    ZipFile(wheel).extractall(folder)
    return folder


def run(unpacked: Path, folder: Path, *arguments: str) -> str:
    """Return what Python prints with the unpacked wheel."""
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_wheel_has_one_package_with_all_of_its_files(unpacked: Path):
    package, information = sorted(unpacked.iterdir())
    assert (package.name, information.suffix) == ("microbudget_rl", ".dist-info")
    needed = {
        f"{FOLDERS[name]}/{path.relative_to(ROOT / name)}"
        for name in FOLDERS
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in (".sh", ".txt", ".Dockerfile", ".pyc")
    }
    installed = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert needed - installed == {"launch/cluster.yaml"}
    entries = (information / "entry_points.txt").read_text()
    assert "microbudget = microbudget_rl.launch.__main__:from_the_shell" in entries
    assert "microbudget_rollout = microbudget_rl.actors.rollout.vllm_plugin:register" in entries


def test_commands_need_no_extra_or_name_it_in_one_line(unpacked: Path, tmp_path: Path):
    shutil.copy(ROOT / "conf" / "recipes" / "mine.csv", tmp_path)
    said = json.loads(run(unpacked, tmp_path, "-c", PROGRAM, *LIGHT, *REFUSED))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
    assert {line: said[line] for line in LIGHT if said[line][0]} == {}
    assert all(f"\n  {name} " in said["help"][1] for name in COMMANDS)
    assert "\nuser: " in said[PREVIEW][1]
    assert "'microbudget-rl[cuda]'" in said[PREVIEW][1]
    for line, extra in REFUSED.items():
        code, _, error = said[line]
        assert (code, error.count("\n"), f"pip install 'microbudget-rl[{extra}]'" in error) == (2, 1, True), line


def test_workers_of_an_installed_package_verify(unpacked: Path, tmp_path: Path):
    (tmp_path / "answers.jsonl").write_text(json.dumps({"gold": "x + 1", "response": "\\boxed{1 + x}"}))
    said = run(unpacked, tmp_path, "-m", "microbudget_rl.launch", "verify", "answers.jsonl")
    assert json.loads(said)["status"] == "correct"


@pytest.mark.slow
def test_it_runs_and_exports_from_any_folder(unpacked: Path, tmp_path: Path):
    call = partial(run, unpacked, tmp_path, "-m", "microbudget_rl.launch")
    call("run", "conf=quickstart", "dashboard.port=0", "budget.updates=2", "budget.minutes=8", "eval.problems=16")
    folder = tmp_path / "runs" / "quickstart"
    assert json.loads((folder / "summary.json").read_text())["updates"] == 2
    assert "<svg" in (folder / "report.html").read_text()
    call("export", "runs/quickstart", "to=mine", "type=adapter")
    assert "library_name: peft" in (tmp_path / "mine" / "README.md").read_text()

"""The wheel: what it installs, its commands without the packages of its extras, and a run outside of the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

from microbudget_rl.launch.__main__ import COMMANDS
from tests.conftest import ROOT
from tests.test_one_name import FOLDERS as NAMES

pytestmark = pytest.mark.long

FOLDERS = {name: name for name in NAMES} | {"docs/start/gallery": "gallery"}
"""Folders of the clone, and their names in the package."""

BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"

HEAVY = (
    *("torch", "ray", "vllm", "transformers", "peft", "deepspeed", "datasets", "sympy", "math_verify", "matplotlib"),
    *("tensorboard", "numpy", "pandas", "pyarrow", "reasoning_gym", "huggingface_hub", "httpx2"),
)
RUN = f"""
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

Said = dict[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, without a network."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("microbudget_rl", *FOLDERS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(copy)], cwd=copy, check=True, capture_output=True)
    (built,) = copy.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def said(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """Run all commands, in an otherwise empty folder that they do not change."""
    folder = tmp_path_factory.mktemp("folder")
    shutil.copy(ROOT / "conf" / "recipes" / "mine.csv", folder)
    command = [sys.executable, "-c", RUN, *LIGHT, *REFUSED]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(unpacked)}, check=True, capture_output=True, text=True
    )
    assert [path.name for path in folder.iterdir()] == ["mine.csv"]
    results: Said = json.loads(done.stdout)
    return results


def test_the_wheel_has_one_package_with_all_of_its_files(unpacked: Path) -> None:
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


def test_plan_help_and_preview_need_no_extra(said: Said) -> None:
    assert {line: said[line] for line in LIGHT if said[line][0]} == {}
    assert all(f"\n  {name} " in said["help"][1] for name in COMMANDS)
    preview = said[PREVIEW][1]
    assert "\nuser: " in preview
    assert "'microbudget-rl[cuda]'" in preview


def test_a_missing_extra_is_named_in_one_line(said: Said) -> None:
    for line, extra in REFUSED.items():
        code, _, error = said[line]
        assert (code, error.count("\n"), f"pip install 'microbudget-rl[{extra}]'" in error) == (2, 1, True), line


def test_workers_of_an_installed_package_verify(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps({"gold": "x + 1", "response": "\\boxed{1 + x}"}))
    command = [sys.executable, "-m", "microbudget_rl.launch", "verify", "answers.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["status"] == "correct"


@pytest.fixture
def microbudget(wheel: Path, tmp_path: Path) -> Path:
    """The console script in a virtual environment; its dependencies come from the environment of the tests."""
    environment = tmp_path / "environment"
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

    short = ("budget.updates=2", "budget.minutes=8", "eval.problems=16")
    call("run", "conf=quickstart", "dashboard.port=0", *short)
    run = tmp_path / "runs" / "quickstart"
    assert json.loads((run / "summary.json").read_text())["updates"] == 2
    assert "<svg" in (run / "report.html").read_text()
    assert "library_name: peft" in call("push", "runs/quickstart", "to=me/mine", "dry_run=true")

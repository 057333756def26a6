"""The files of launch/cloud, checked without a cloud or Docker."""

import json
import os
import re
import shutil
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from microbudget_rl.conf.load import load
from tests.conftest import ROOT

each_file = pytest.mark.parametrize(
    "file", sorted((ROOT / "launch" / "cloud").iterdir()), ids=lambda file: file.stem.partition(".")[0]
)


@each_file
def test_dockerfile_is_sound_and_uses_files_that_exist(file: Path) -> None:
    text = file.read_text()
    assert re.search(r"^FROM \S+:\S+$", text, re.MULTILINE)
    assert all((ROOT / script).is_file() for script in re.findall(r"bash (launch/\S+)", text))
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert json.loads(entry) == [".venv/bin/microbudget"]
    assert 'microbudget = "microbudget_rl.launch.__main__:from_the_shell"' in (ROOT / "pyproject.toml").read_text()
    (cache,) = re.findall(r"^ENV .*XDG_CACHE_HOME=(\S+)", text, re.MULTILINE)
    assert re.search(rf"^#   docker run .* -v [\w-]+:{cache} ", text, re.MULTILINE)  # models outlive a container
    for conf in re.findall(r"conf=(\w+)", text):
        load([f"conf={conf}"])
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("there is no hadolint: bash launch/setup.sh dev")
    subprocess.run([hadolint, str(file)], check=True)


@pytest.mark.long
@each_file
def test_commands_answer_in_the_working_folder_of_an_image(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's own arguments of pip, or those of its script, install the project into a fresh environment in a copy.
    The packages of its extras are this environment's."""
    (folder,) = re.findall(r"^WORKDIR (\S+)\nCOPY \. \.$", file.read_text(), re.MULTILINE)
    script = re.search(r"bash (launch/\S+)", file.read_text())
    installing = ROOT / script[1] if script else file
    (asked,) = re.findall(r'--constraint \S+ (.*"\.)\[\S+\]"', installing.read_text())
    project = tmp_path / Path(folder).name
    shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
    venv.create(project / ".venv")
    (packages,) = (project / ".venv").glob("lib/*/site-packages")
    (packages / "extras.pth").write_text(sysconfig.get_path("purelib"))
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(project)
    install = [".venv/bin/python", "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*install, *shlex.split(f'{asked}"')], check=True, capture_output=True)
    for command in ("help", "plan conf=gsm8k device=4090"):
        ended = subprocess.run([".venv/bin/microbudget", *command.split()], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")

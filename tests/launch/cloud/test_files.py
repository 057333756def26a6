"""The files of launch/cloud, checked without a cloud or Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from microbudget_rl.conf.load import load
from tests.conftest import ROOT

FILES = sorted((ROOT / "launch" / "cloud").iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_dockerfile_is_sound_and_uses_files_that_exist(file: Path):
    text = file.read_text()
    assert re.search(r"^FROM \S+:\S+$", text, re.MULTILINE)
    assert all((ROOT / script).is_file() for script in re.findall(r"bash (launch/\S+)", text))
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert json.loads(entry) == [".venv/bin/microbudget"]
    assert 'microbudget = "microbudget_rl.launch.__main__:from_the_shell"' in (ROOT / "pyproject.toml").read_text()
    assert re.search(r" -v microbudget:/cache [\s\S]* XDG_CACHE_HOME=/cache$", text, re.MULTILINE)  # which outlives it
    for conf in re.findall(r"conf=(\w+)", text):
        load([f"conf={conf}"])
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("there is no hadolint: bash launch/setup.sh dev")
    subprocess.run([hadolint, str(file)], check=True)


@pytest.mark.long
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_commands_answer_in_the_working_folder_of_an_image(file: Path, tmp_path: Path):
    """The file's pip line, or that of its script, without extras: their packages are those of this environment."""
    text, project = file.read_text(), tmp_path / "project"
    assert "WORKDIR /project\nCOPY . .\n" in text
    script = re.search(r"bash (launch/\S+)", text)
    (asked,) = re.findall(r'(--editable )?"\.\[\S+\]"', (ROOT / script[1]).read_text() if script else text)
    shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
    venv.create(project / ".venv")
    (packages,) = project.glob(".venv/lib/*/site-packages")
    (packages / "extras.pth").write_text(sysconfig.get_path("purelib"))
    for command in (
        f"python -m pip install --no-deps --no-build-isolation --ignore-installed {asked} .",
        "microbudget help",
        "microbudget plan conf=gsm8k device=4090",
    ):
        assert subprocess.run(f"env -u PYTHONPATH .venv/bin/{command}", shell=True, cwd=project).returncode == 0, (
            command
        )

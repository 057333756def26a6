"""The files of launch/cloud, checked without a cloud or Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from microbudget_rl.conf.load import load
from tests.conftest import ROOT


@pytest.mark.parametrize("file", sorted((ROOT / "launch" / "cloud").iterdir()), ids=lambda file: file.stem)
def test_dockerfile_is_sound_and_uses_files_that_exist(file: Path) -> None:
    text = file.read_text()
    assert re.search(r"^FROM \S+:\S+$", text, re.MULTILINE)
    assert all((ROOT / script).is_file() for script in re.findall(r"bash (launch/\S+)", text))
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert json.loads(entry) == [".venv/bin/microbudget"]
    assert 'microbudget = "microbudget_rl.launch.__main__:from_the_shell"' in (ROOT / "pyproject.toml").read_text()
    for conf in re.findall(r"conf=(\w+)", text):
        load([f"conf={conf}"])
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("there is no hadolint: bash launch/setup.sh dev")
    subprocess.run([hadolint, str(file)], check=True)

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.chats.aside import aside

NOISE = [sys.executable, "-c", "import sys; sys.stderr.write('a warning')"]


def test_what_is_started_meanwhile_is_not_on_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    with aside():
        subprocess.run(NOISE, check=True)
        os.write(2, b"another")
    os.write(2, b"said afterwards")
    assert capfd.readouterr().err == "said afterwards"


def test_an_error_names_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError), aside():
        subprocess.run([*NOISE[:2], NOISE[2] + "; sys.exit(1)"], check=True)
    said = capfd.readouterr().err.strip()
    file = Path(said.rpartition(" ")[2])
    assert file.read_text() == "a warning"
    file.unlink()

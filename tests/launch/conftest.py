"""A stand-in for the driver."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a tool on the path that prints a table, or does what a script says that starts with `#!`. All cards are
    visible.
    """
    folder = tmp_path / "driver"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # what is set meanwhile ends with the test
        monkeypatch.delenv(name)

    def install(says: str) -> Path:
        tool = folder / "nvidia-smi"
        tool.write_text(says if says.startswith("#!") else f"#!/bin/sh\n/bin/cat <<EOF\n{says}EOF\n")
        tool.chmod(0o755)
        return tool

    return install

from pathlib import Path

import pytest

from tests.actors.virtual_run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)

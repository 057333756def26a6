"""Bad input ends in one sentence and exit code 2, soon, and leaves what was there as it was."""

from pathlib import Path

import pytest

from tests.hostile.battery import sample, tried
from tests.hostile.case import Case
from tests.hostile.stock import Stock


@pytest.mark.parametrize("case", sample(), ids=lambda case: case.id.encode("unicode_escape").decode()[:80])
def test_bad_input_ends_in_one_sentence(case: Case, stock: Stock, tmp_path: Path) -> None:
    assert tried(case, tmp_path, stock) == ""

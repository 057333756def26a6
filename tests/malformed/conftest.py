"""Sound inputs for all tests here, made once."""

import pytest

from tests.malformed.stock import Stock, write_stock


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return write_stock(tmp_path_factory.mktemp("stock"))

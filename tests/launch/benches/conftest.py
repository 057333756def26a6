import pytest

from launch.benches import small_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small model, hardly trained."""
    folder = tmp_path_factory.mktemp("small-model")
    small_model.make(folder, steps=2)
    return str(folder)

"""A learner of the tiny model."""

from pathlib import Path

import pytest

from conf.schema import Config
from learner.learner import LoraLearner


@pytest.fixture
def learner(tiny_config: Config, tiny_model: Path, tmp_path: Path) -> LoraLearner:
    return LoraLearner(tiny_config, str(tiny_model), tmp_path / "adapters")

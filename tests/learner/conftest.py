"""A learner of the tiny model."""

from pathlib import Path

import pytest
from hypothesis import settings

from conf.schema import Config
from learner.learner import LoraLearner

settings.register_profile("without-deadline", deadline=None)  # a busy machine takes longer than it should
settings.load_profile("without-deadline")


@pytest.fixture
def learner(tiny_config: Config, tiny_model: Path, tmp_path: Path) -> LoraLearner:
    return LoraLearner(tiny_config, str(tiny_model), tmp_path / "adapters")

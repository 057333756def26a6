"""Learners of the tiny model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.learner.helpers import Make

if TYPE_CHECKING:
    from microbudget_rl.learner.learner import LoraLearner


@pytest.fixture
def make(tiny_config: Config, tmp_path: Path) -> Make:
    """Makes a learner with other settings than `tiny_config`, by their keys."""

    from microbudget_rl.learner.learner import LoraLearner

    def make(settings: dict[str, Any] | None = None) -> LoraLearner:
        config = changed(tiny_config, settings or {})
        return LoraLearner(config, config.model.path, tmp_path / "adapters")

    return make


@pytest.fixture
def learner(make: Make) -> "LoraLearner":
    return make()

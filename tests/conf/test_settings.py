"""Each setting is documented, its default may be used, and nothing writes into settings."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass
from typing import Any

import pytest

from microbudget_rl.conf.schema import Config, SweepCommandLine
from microbudget_rl.conf.settings import AFFECTS, RULES, build, changed, settings

ALL = list(settings(SweepCommandLine))


def sections(kind: Any) -> Iterator[type]:
    yield kind
    for field in fields(kind):
        if is_dataclass(field.type):
            yield from sections(field.type)


def test_every_setting_is_documented_and_bounded():
    assert [item.path for item in ALL if not (item.meaning and item.source)] == []
    assert [
        kind for kind in sections(SweepCommandLine) if (kind.__doc__ or kind.__name__).startswith(kind.__name__)
    ] == []
    assert [
        item.path
        for item in settings(Config)
        if not {*item.affects.split()} or not {*item.affects.split()} <= {*AFFECTS}
    ] == []
    assert [item.path for item in ALL if item.kind in (int, float, int | None, float | None) and not item.rule] == []


def test_the_defaults_are_allowed():
    assert build(SweepCommandLine, asdict(SweepCommandLine()), context=RULES) == SweepCommandLine()


def test_settings_change_in_copies_alone():
    config = Config()
    other = changed(config, {"lora.rank": 8, "model.shape.num_hidden_layers": 3, "device": "cpu"})
    assert (other.lora.rank, other.model.shape.num_hidden_layers, other.device) == (8, 3, "cpu")
    assert config == Config()
    assert other.reward is config.reward
    for frozen in (config, config.lora, config.model.shape):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, fields(frozen)[0].name, 1)

"""Each setting is documented, its default may be used, and nothing writes into settings."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass
from typing import Any

import pytest
from pydantic.dataclasses import dataclass

from conf.errors import BadInput
from conf.schema import Config, SweepCommandLine
from conf.settings import AFFECTS, DECLARED, RULES, build, changed, section, setting, settings

ALL = list(settings(SweepCommandLine))


def sections(kind: Any) -> Iterator[type]:
    yield kind
    for field in fields(kind):
        if is_dataclass(field.type):
            yield from sections(field.type)


def test_every_setting_is_documented_and_bounded() -> None:
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


def test_the_defaults_are_allowed() -> None:
    assert build(SweepCommandLine, asdict(SweepCommandLine()), context=RULES) == SweepCommandLine()


def test_followed_settings_exist() -> None:
    followed = {"data.source", "model.path", "budget.hours", "warm_start.source"}
    assert {item.follows for item in ALL if item.follows} == followed


def test_settings_change_in_copies_alone() -> None:
    config = Config()
    other = changed(config, {"lora.rank": 8, "model.shape.num_hidden_layers": 3, "device": "cpu"})
    assert (other.lora.rank, other.model.shape.num_hidden_layers, other.device) == (8, 3, "cpu")
    assert config == Config()
    assert other.reward is config.reward
    for frozen in (config, config.lora, config.model.shape):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, fields(frozen)[0].name, 1)


@dataclass(config=DECLARED, frozen=True)
class Inner:
    share: float = setting(0.5, "our choice", ge=0, le=1)
    """A share, of
    something."""
    word: str | None = setting(None, "our choice", choices=("on", "off"))


@dataclass(config=DECLARED, frozen=True)
class Outer:
    count: int = setting(3, "the paper", ge=1)
    """How many."""
    inner: Inner = section(Inner, resumable=True)


def test_all_faults_are_found_where_rules_count() -> None:
    assert build(Outer, {"count": 0, "inner": {"share": 2}}).count == 0
    tree = {"count": "3", "abvoe": 1, "inner": {"share": 2, "word": [1]}}
    with pytest.raises(BadInput) as caught:
        build(Outer, tree, lambda place: f"{len(place)}|", context=RULES)
    assert {line.split(" ")[0] for line in str(caught.value).splitlines()} == {
        "1|count=3:",
        "2|inner.share=2",
        "2|inner.word=[1]:",
        "1|abvoe:",
    }

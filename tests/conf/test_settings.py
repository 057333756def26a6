"""Each setting is documented, and its default may be used."""

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import pytest
from pydantic.dataclasses import dataclass

from conf.errors import BadInput
from conf.schema import MAY_CHANGE, ConfigWithSweep
from conf.settings import DECLARED, RULES, Setting, build, expected, section, setting, settings

ALL = list(settings(ConfigWithSweep))


def sections(kind: Any) -> Iterator[type]:
    yield kind
    for field in fields(kind):
        if is_dataclass(field.type):
            yield from sections(field.type)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.path)
def test_each_setting_has_a_meaning_and_a_source(item: Setting) -> None:
    assert item.meaning
    assert item.source


@pytest.mark.parametrize("kind", list(sections(ConfigWithSweep)), ids=lambda kind: kind.__name__)
def test_each_section_says_what_it_is_about(kind: type) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__)


def test_the_defaults_are_allowed() -> None:
    assert build(ConfigWithSweep, asdict(ConfigWithSweep()), context=RULES) == ConfigWithSweep()


def test_every_number_has_a_range() -> None:
    assert [item.path for item in ALL if item.kind in (int, float, int | None, float | None) and not item.rule] == []


def test_a_run_may_be_resumed_with_another_budget_but_not_with_another_rank() -> None:
    assert {"budget.hours", "learner.ranks", "dashboard.port", "validation.every"} <= set(MAY_CHANGE)
    assert not {"lora.rank", "learner.learning_rate", "data.source", "run.seed"} & set(MAY_CHANGE)


@dataclass(config=DECLARED)
class Inner:
    share: float = setting(0.5, "our choice", ge=0, le=1)
    """A share, of
    something."""
    word: str | None = setting(None, "our choice", choices=("on", "off"))


@dataclass(config=DECLARED)
class Outer:
    count: int = setting(3, "the paper", ge=1)
    """How many."""
    above: float = setting(0.1, "our choice", gt=0, resumable=True)
    """A number."""
    inner: Inner = section(Inner, resumable=True)


def test_a_setting_knows_its_path_meaning_and_source() -> None:
    count, above, share, word = settings(Outer, "top.")
    assert [item.path for item in (count, above, share, word)] == [
        "top.count",
        "top.above",
        "top.inner.share",
        "top.inner.word",
    ]
    assert (count.meaning, share.meaning, word.meaning) == ("How many.", "A share, of something.", "")
    assert [item.resumable for item in (count, above, share, word)] == [False, True, True, True]
    assert (count.source, expected(word.kind), expected(above.kind)) == ("the paper", "text or null", "a number")


def test_expected_list_has_an_example_of_its_items() -> None:
    assert [expected(kind) for kind in (list[int], list[float] | None, list[str])] == [
        "a list such as [1,8]",
        "a list such as [0.5,1] or null",
        "a list such as [a,b]",
    ]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"count": 0}, "count=0 .*1 or more"),
        ({"above": 0.0}, "above=0.0 .*above 0"),
        ({"above": float("inf")}, "above=inf .*1,000,000,000"),
        ({"inner": {"share": 1.5}}, "inner.share=1.5 .*from 0 to 1"),
        ({"inner": {"word": "maybe"}}, "inner.word=maybe .*on, off"),
    ],
)
def test_values_out_of_range_are_refused_with_the_range_where_rules_count(tree: dict[str, Any], words: str) -> None:
    build(Outer, tree)
    with pytest.raises(BadInput, match=words):
        build(Outer, tree, context=RULES)


def test_all_that_is_wrong_is_found_at_once() -> None:
    tree = {"count": "3", "abvoe": 1, "inner": {"share": 2, "word": [1]}}
    with pytest.raises(BadInput) as caught:
        build(Outer, tree, lambda place: f"{len(place)}|", context=RULES)
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "1|count=3:",
        "2|inner.share=2",
        "2|inner.word=[1]:",
        "1|abvoe:",
    ]

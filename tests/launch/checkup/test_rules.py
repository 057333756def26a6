"""Each rule of the verdict applies where it should, and stands in the documentation."""

import math

import pytest

from actors.evaluation.statistics import Mean
from launch.checkup.rules import RULES, Rule, certain, rule_for, sentence
from tests.conftest import ROOT

SOUND = {
    "pass@1": 0.2,
    "pass@n": 0.5,
    "useful": 0.4,
    "unverified": 0.0,
    "paid": 1.0,
    "unparsable": 0.1,
    "asked": 1.0,
    "ended": 0.9,
    "unboxed": 0.1,
    "groups": 1000.0,
}
CASES = [
    ({}, "worth it"),
    ({"unverified": 0.1}, "the verifier fails"),
    ({"unverified": 0.09}, "worth it"),
    ({"unverified": 1.0, "useful": 0.0, "pass@1": 0.0, "unparsable": 1.0}, "the verifier fails"),
    ({"paid": 0.4}, "the reward contradicts the answers"),
    ({"pass@1": 0.9}, "too easy"),
    ({"pass@1": 0.8, "useful": 0.05}, "too easy"),
    ({"pass@1": 0.8, "useful": 0.3}, "worth it"),
    ({"useful": 0.0, "pass@1": 0.0, "unparsable": 1.0, "asked": 0.0, "ended": 0.1}, "format"),
    ({"useful": 0.0, "pass@1": 0.0, "unparsable": 1.0, "ended": 0.1, "unboxed": 1.0}, "cut off"),
    ({"useful": 0.0, "pass@1": 0.0, "unparsable": 0.9, "unboxed": 0.9}, "format"),
    ({"useful": 0.09, "pass@1": 0.01}, "too hard"),
    ({"useful": 0.1, "pass@1": 0.01}, "worth it"),
    ({"ended": 0.1, "unparsable": 0.8, "unboxed": 0.9, "asked": 0.0}, "worth it"),  # it learns what to do about it
    ({"groups": 63.0}, "the budget is too short"),
]


def means(**change: float) -> dict[str, Mean]:
    return {name: Mean(value) for name, value in {**SOUND, **change}.items()}


@pytest.mark.parametrize(("change", "name"), CASES)
def test_a_rule_applies(change: dict[str, float], name: str) -> None:
    assert rule_for(means(**change)).name == name


def test_only_one_verdict_is_worth_a_run_and_each_other_has_a_remedy() -> None:
    assert {rule.name for rule in RULES} == {name for _, name in CASES}
    assert [rule.name for rule in RULES if rule.worth] == ["worth it"]
    assert all(rule.remedy or rule.worth for rule in RULES)


@pytest.mark.parametrize("change", [{"paid": 0.0}, {"useful": 0.0, "unboxed": 1.0}, {"groups": 0.0}])
def test_a_figure_that_is_not_known_decides_nothing(change: dict[str, float]) -> None:
    figures = means(**change)
    named = rule_for(figures).name
    del figures[[*change][-1]]
    assert rule_for(figures).name != named


def test_a_verdict_is_certain_if_both_ends_of_all_intervals_agree() -> None:
    figures = means()
    assert certain({**figures, "useful": Mean(0.4, (0.11, 0.6))})
    assert not certain({**figures, "useful": Mean(0.4, (0.09, 0.6))})
    assert not certain({**figures, "pass@1": Mean(0.6, (0.4, 0.9))})
    assert certain({**figures, "unparsable": Mean(0.5, (0.0, 1.0))})


@pytest.mark.parametrize("rule", RULES)
def test_a_sentence_has_reason_and_remedy(rule: Rule) -> None:
    said = sentence(rule, means(), {"n": "16", "limits": "rollout.max_response_tokens=48"})
    assert said.lower().startswith(f"{rule.name}: ")
    assert not {"{", "}"} & {*said.replace("\\boxed{}", "")}
    assert said[:-1].endswith(rule.remedy.format(limits="rollout.max_response_tokens=48"))


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "how-to" / "is-it-worth-it.md").read_text("utf-8")
    rows = [line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| **")]
    assert rows == [[f"| **{rule.name}**", condition(rule)] for rule in RULES]


def condition(rule: Rule) -> str:
    """Write the condition of a rule as the page does."""
    parts = []
    for name, (low, high) in rule.when.items():
        bound = f"from {low:g}" if math.isinf(high) else f"below {high:g}"
        parts.append(f"`{name}` {bound}")
    return ", ".join(parts) or "otherwise"

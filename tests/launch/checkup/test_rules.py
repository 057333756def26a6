"""Each verdict applies where it should."""

import pytest

from actors.evaluation.statistics import Mean
from launch.checkup.rules import RULES, Rule, others, rule_for

SOUND = {"pass@1": 0.2, "pass@n": 0.5, "useful": 0.4, "unverified": 0.0, "paid": 1.0, "groups": 1000.0}
SOUND |= {"unparsable": 0.1, "asked": 1.0, "ended": 0.9, "unboxed": 0.1}
NOTHING = {"useful": 0.0, "pass@1": 0.0, "unparsable": 1.0}
CASES = [
    ({}, "worth it"),
    ({"unverified": 0.1}, "the verifier fails"),
    ({"unverified": 0.09}, "worth it"),
    ({**NOTHING, "unverified": 1.0}, "the verifier fails"),
    ({"paid": 0.4}, "the reward contradicts the answers"),
    ({"pass@1": 0.9}, "too easy"),
    ({"pass@1": 0.8, "useful": 0.01}, "too easy"),
    ({"pass@1": 0.8}, "worth it"),
    ({**NOTHING, "asked": 0.0, "ended": 0.1}, "format"),
    ({**NOTHING, "ended": 0.1, "unboxed": 1.0}, "cut off"),
    ({**NOTHING, "unboxed": 0.9}, "format"),
    ({"useful": 0.01}, "too hard"),
    ({"useful": 0.02}, "worth it"),
    ({"ended": 0.1, "unparsable": 0.8, "unboxed": 0.9, "asked": 0.0}, "worth it"),  # it learns what to do about it
    ({"groups": 9.0}, "the budget is too short"),
    ({"groups": 10.0}, "worth it"),
]


def means(**change: float) -> dict[str, Mean]:
    return {name: Mean(value) for name, value in {**SOUND, **change}.items()}


@pytest.mark.parametrize(("change", "verdict"), CASES)
def test_a_rule_applies(change: dict[str, float], verdict: str) -> None:
    assert rule_for(means(**change)).verdict == verdict
    assert rule_for(means(**change)).worth == (verdict == "worth it")
    assert {rule.verdict for rule in RULES} == {verdict for _, verdict in CASES}


@pytest.mark.parametrize("change", [{"paid": 0.0}, {"useful": 0.0, "unboxed": 1.0}, {"groups": 0.0}])
def test_a_figure_that_is_not_known_decides_nothing(change: dict[str, float]) -> None:
    figures = means(**change)
    before = rule_for(figures).verdict
    del figures[[*change][-1]]
    assert rule_for(figures).verdict != before


def test_a_verdict_is_certain_if_both_ends_of_all_intervals_agree() -> None:
    for name, interval, also in (
        ("useful", (0.06, 0.6), set[str]()),
        ("useful", (0.01, 0.6), {"too hard"}),
        ("pass@1", (0.1, 0.9), {"too easy"}),
        ("unparsable", (0.0, 1.0), set[str]()),
    ):
        assert others({**means(), name: Mean(0.3, interval)}) == also
    none_right = means() | {"useful": Mean(0.0, (0.0, 0.04)), "groups": Mean(0.0, (0.0, 40.0))}
    assert (rule_for(none_right).verdict, others(none_right)) == ("too hard", {"worth it"})


@pytest.mark.parametrize("rule", RULES)
def test_a_sentence_has_all_its_figures(rule: Rule) -> None:
    said = rule.sentence(means(), n="16", limits="rollout.max_response_tokens=48")
    assert not {"{", "}"} & {*said.replace("\\boxed{}", "")}
    assert "useful" not in rule.when or "{useful}" not in rule.reason or "40.0%" in said
    assert ("{groups}" in rule.reason) == ("about 1,000" in said)
    unknown = {name: mean for name, mean in means().items() if name != "groups"}
    assert "about an" not in rule.sentence(unknown, n="16", limits="")

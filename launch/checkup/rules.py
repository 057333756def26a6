"""The verdict on a signal: the first rule that applies. docs/how-to/is-it-worth-it.md has the same table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from actors.evaluation.statistics import Mean

WORTH_IT = "worth it"

LEAST_USEFUL = 0.1
"""Share of useful groups below which a run hardly learns: at a twentieth, one run in three would soon halt because 64
groups in a row teach nothing."""

MOST = math.inf


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    when: for each figure the value from which, and the one below which, the rule applies. A rule about a figure that is
        not known does not apply.
    reason, remedy: texts with figures in braces, and with the settings of `advice`.
    """

    name: str
    when: Mapping[str, tuple[float, float]]
    reason: str
    remedy: str = ""

    @property
    def worth(self) -> bool:
        return self.name == WORTH_IT

    def applies(self, figures: Mapping[str, Mean]) -> bool:
        return all(name in figures and low <= figures[name].value < high for name, (low, high) in self.when.items())


RULES = (
    Rule(
        "the verifier fails",
        {"unverified": (0.1, MOST)},
        "{unverified} of the responses could not be verified in time or without a crash",
        "raise reward.deadline_s or reward.memory_mib, or correct the function that the samples name",
    ),
    Rule(
        "the reward contradicts the answers",
        {"paid": (0, 0.5)},
        "right responses earn more than wrong ones in only {paid} of the groups that have both",
        "correct reward.custom or the weights of the reward",
    ),
    Rule(
        "too easy",
        {"pass@1": (0.9, MOST)},
        "{pass@1} of the responses are right already",
        "take harder problems",
    ),
    Rule(
        "too easy",
        {"useful": (0, LEAST_USEFUL), "pass@1": (0.5, MOST)},
        "only {useful} of the groups have right and wrong responses, and {pass@1} of all responses are right",
        "take harder problems, or give learner.dynamic_sampling=true",
    ),
    Rule(
        "format",
        {"useful": (0, LEAST_USEFUL), "unparsable": (0.5, MOST), "asked": (0, 0.5)},
        "{unparsable} of the responses have no readable answer, and {asked} of the prompts ask for \\boxed{{}}",
        "ask for it in data.template, or show it in data.few_shot",
    ),
    Rule(
        "cut off",
        {"useful": (0, LEAST_USEFUL), "ended": (0, 0.5)},
        "only {useful} of the groups have right and wrong responses, and only {ended} of the responses end before the"
        " limit",
        "give {limits}",
    ),
    Rule(
        "format",
        {"useful": (0, LEAST_USEFUL), "unboxed": (0.5, MOST)},
        "only {useful} of the groups have right and wrong responses; {unboxed} of the responses that end before the"
        " limit have no readable answer",
        "show the form of an answer in data.few_shot, and let data.template and reward.preset ask for the same",
    ),
    Rule(
        "too hard",
        {"useful": (0, LEAST_USEFUL)},
        "only {useful} of the groups have right and wrong responses, and pass@{n} is {pass@n}",
        "take easier problems or a larger model, or show solved ones in data.few_shot",
    ),
    Rule(
        "the budget is too short",
        {"groups": (0, 64)},
        "{useful} of the groups are useful, but the budget holds only about {groups} of them",
        "raise budget.hours",
    ),
    Rule(
        WORTH_IT,
        {},
        "{useful} of the groups have right and wrong responses, and the budget holds about {groups} of them; pass@1 is"
        " {pass@1}, pass@{n} {pass@n}",
    ),
)


def rule_for(figures: Mapping[str, Mean]) -> Rule:
    """Return the first rule that applies."""
    return next(rule for rule in RULES if rule.applies(figures))


def certain(figures: Mapping[str, Mean]) -> bool:
    """Whether the verdict is the same at both ends of the interval of each figure."""
    name = rule_for(figures).name
    ends = ((key, end) for key, mean in figures.items() for end in mean.interval or ())
    return all(rule_for({**figures, key: replace(figures[key], value=end)}).name == name for key, end in ends)


def sentence(rule: Rule, figures: Mapping[str, Mean], advice: Mapping[str, str]) -> str:
    """Return the verdict with its reason and its remedy."""
    known = {name: shown(name, mean) for name, mean in figures.items()}
    text = f"{rule.name}: {rule.reason}{f'; {rule.remedy}' if rule.remedy else ''}."
    return (text[0].upper() + text[1:]).format_map({"groups": "an unknown number", **known, **advice})


def shown(name: str, mean: Mean) -> str:
    """Write a figure with its interval."""
    if name == "groups":
        return f"{mean.value:,.0f}"
    interval = f" ({mean.interval[0]:.1%} to {mean.interval[1]:.1%})" if mean.interval else ""
    return f"{mean.value:.1%}{interval}"

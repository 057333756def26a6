"""The verdict on the doctor's samples: the first rule of conf/verdicts.yaml that applies."""

from collections.abc import Mapping
from dataclasses import dataclass

from actors.evaluation.statistics import Mean
from conf.catalogue import table

Figures = Mapping[str, Mean]

MULTIPLES = {"groups": "useful"}
"""Figures that are a multiple of another one, by their names: their intervals have the same ends."""


@dataclass(frozen=True)
class Rule:
    """A row of the table. when: figure → the value from which, and the one below which, the rule applies."""

    verdict: str
    when: Mapping[str, tuple[float, float]]
    reason: str
    remedy: str

    @property
    def worth(self) -> bool:
        return not self.remedy

    def applies(self, figures: Figures) -> bool:
        return all(name in figures and low <= figures[name].value < high for name, (low, high) in self.when.items())

    def sentence(self, figures: Figures, **known: str) -> str:
        """Return the verdict with its reason and its remedy. known: other values for the braces."""
        text = f"{self.verdict.capitalize()}: {self.reason}{f'; {self.remedy}' if self.remedy else ''}."
        shown_ones = {name: shown(name, mean) for name, mean in figures.items()}
        return text.format_map({"groups": "an unknown number", **shown_ones, **known})


RULES = tuple(Rule(**row) for row in table("verdicts")["rules"])


def rule_for(figures: Figures) -> Rule:
    """Return the first rule that applies."""
    return next(rule for rule in RULES if rule.applies(figures))


def others(figures: Figures) -> set[str]:
    """Return the other verdicts that an end of a figure's interval would give; none if the verdict is certain."""

    def at(moved: str, end: int) -> str:
        ends = {name: mean.interval for name, mean in figures.items() if MULTIPLES.get(name, name) == moved}
        return rule_for({**figures, **{name: Mean(found[end]) for name, found in ends.items() if found}}).verdict

    return {at(name, end) for name in figures for end in (0, 1)} - {rule_for(figures).verdict}


def shown(name: str, mean: Mean) -> str:
    """Write a figure with its interval."""
    if name == "groups":
        return f"about {mean.value:,.0f}"
    return f"{mean.value:.1%}" + (" ({:.1%} to {:.1%})".format(*mean.interval) if mean.interval else "")

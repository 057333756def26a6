"""The problems: their source, the prompt around them, and the filters."""

import re
from dataclasses import replace
from typing import Any

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.catalogue import SOURCE_FORMS, SOURCES, find_benchmark
from microbudget_rl.conf.settings import DECLARED, Rule, setting


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups >= 1
    except (re.error, OverflowError, RecursionError):
        return False


SOURCE = Rule(lambda text: SOURCES.fullmatch(text) is not None, f"use {SOURCE_FORMS}")
SOURCE_OR_NONE = Rule(lambda text: not text or SOURCE.allows(text), SOURCE.remedy)
PATTERN = Rule(lambda text: not text or _has_group(text), "use a regular expression with one (group)")
TEMPLATE = Rule(lambda text: "{problem}" in text, "use a text with {problem} where the problem belongs")


@dataclass(config=DECLARED, frozen=True)
class ExampleConfig:
    """A solved problem. problem: as in the source. answer: the whole response that the model is shown for it."""

    problem: str = ""
    answer: str = ""


NAME = Rule(
    lambda name: re.fullmatch(r"[\w.-]{,40}", name) is not None,
    "use up to 40 letters, digits, dots, dashes and underscores",
)


@dataclass(config=DECLARED, frozen=True)
class SourceConfig:
    """A source of `data.mixture`. Keys from `parameters` on are those of `data` for this source alone, null data's."""

    source: str = setting("", "none", rule=SOURCE_OR_NONE)
    weight: float = setting(1.0, "our choice: equal shares", gt=0)
    name: str = setting("", "the file's, data set's, generator's or function's own", rule=NAME)
    parameters: dict[str, Any] | None = None
    size: int | None = setting(None, "data.size", ge=1, le=10**7)
    scan: int | None = setting(None, "data.scan", ge=1, le=10**7)
    problem_field: str | None = None
    answer_field: str | None = None
    problem_pattern: str | None = setting(None, "data.problem_pattern", rule=PATTERN)
    system: str | None = None
    template: str | None = setting(None, "data.template", rule=TEMPLATE)
    few_shot: list[ExampleConfig] | None = None

    @property
    def called(self) -> str:
        """Its name in metrics and reports."""
        return self.name or find_benchmark(self.source).name


@dataclass(config=DECLARED, frozen=True)
class DataConfig:
    """Training and held-out problems, and the prompt around them.

    A problem may be a conversation that ends with the user's message. The answer of a worked solution follows its last
    `####` or is in its last `\\boxed{}`.
    """

    source: str = setting(
        "reasoning_gym:chain_sum", "our choice: it needs no network", rule=SOURCE_OR_NONE, affects="split training"
    )
    """Source of the training problems. file: a table in csv, jsonl, json or parquet. hub: a data set on the Hugging
    Face Hub; a revision is a commit, a tag or a branch, and without one the newest commit counts. reasoning_gym: a
    generator that also scores the answers; generators that would run answers as code are refused. import: a function
    that yields rows."""
    mixture: list[SourceConfig] = setting([], "our choice", follows="data.source", affects="split training")
    """Several sources instead of data.source, such as [{source: file:a.csv, weight: 2}, {source: hub:OWNER/NAME, name:
    b}]. Sources alternate in proportion to their weights, never off by two problems or more. Keys that an entry omits
    are those of `data`. Held-out problems are taken in the same proportion, at most eval.share of each source, or from
    data.eval_source. A problem in two sources belongs to the first. Metrics are `source/NAME/…`; functions in
    reward.custom get the source's name as the column data_source (empty without a mixture)."""
    parameters: dict[str, Any] = setting({}, "our choice", follows="data.source")
    """Parameters of the reasoning_gym generator or of the function."""
    size: int | None = setting(None, "our choice", ge=1, le=10**7)
    """Number of training problems of each source. A generator makes this many in total. Null: all."""
    scan: int | None = setting(None, "our choice", ge=1, le=10**7)
    """Number of rows to read from the start of a source. From the Hub, they are streamed instead of downloading
    everything. Null: all, but at most 1,000,000 or data.size, whichever is more."""
    hub_timeout_s: float = setting(600.0, "our choice", gt=0, le=86400, affects="operation")
    """Seconds to wait for the Hub in total."""
    eval_source: str = setting("", "our choice", rule=SOURCE_OR_NONE, follows="data.source")
    """Source of the held-out problems. Empty: the first `eval.problems` of the shuffled training sources."""
    contamination: str = setting(
        "drop",
        "our choice: a result on problems that were trained on shows nothing",
        choices=("drop", "report_only"),
        follows="data.source",
        affects="split training",
    )
    """What happens to training problems that nearly duplicate held-out ones: drop filters them; report_only counts and
    lists them. Near duplicates share their numbers and half of their words or text, or their numbers and answer if
    these have seven digits or more."""
    problem_field: str = setting("", "our choice", follows="data.source")
    """Column of the problem. Empty: guessed from the usual names."""
    answer_field: str = setting("", "our choice", follows="data.source")
    """Column of the reference answer. Empty: guessed from the usual names."""
    problem_pattern: str = setting("", "our choice", rule=PATTERN, follows="data.source")
    """A regular expression whose first group is the part of each problem to use. Empty: the whole problem."""
    system: str | None = setting(None, "our choice", affects="prompt")
    """System message. Null: the conversation's or the chat template's own, if there is one."""
    chat_settings: dict[str, Any] = setting({}, "our choice", affects="prompt")
    """Further arguments of the model's chat template, such as {enable_thinking: false}."""
    template: str = setting("{problem}", "our choice", rule=TEMPLATE, affects="prompt")
    """The user's message. {problem} stands for the problem."""
    few_shot: list[ExampleConfig] = setting([], "our choice", affects="held_out prompt")
    """Few-shot examples: solved problems, shown before the problem as earlier turns of the conversation."""

    @property
    def key(self) -> str:
        """The setting that names where the training problems come from."""
        return "data.mixture" if self.mixture else "data.source"

    @property
    def origin(self) -> str:
        """The only source, or a mixture as `2 × file:a.csv + 1 × file:b.csv`."""
        return " + ".join(f"{entry.weight:g} × {entry.source}" for entry in self.mixture) or self.source

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each source by its name, which is empty for the only one."""
        return {entry.called: entry.weight for entry in self.mixture} or {"": 1.0}

    @property
    def by_source(self) -> dict[str, "DataConfig"]:
        """The settings for each source by its name, which is empty for the only one."""
        configs = {}
        for entry in self.mixture:
            overrides = {key: value for key, value in vars(entry).items() if key in vars(self) and value is not None}
            configs[entry.called] = replace(self, mixture=[], **overrides)
        return configs or {"": self}

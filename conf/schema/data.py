"""The problems: where they come from, how they are posed, which are left out."""

import re
from typing import Any

from pydantic.dataclasses import dataclass

from conf.benchmarks import SOURCE_FORMS, SOURCES
from conf.settings import DECLARED, Rule, setting


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups >= 1
    except (re.error, OverflowError, RecursionError):
        return False


SOURCE = Rule(lambda text: SOURCES.fullmatch(text) is not None, f"use {SOURCE_FORMS}")
SOURCE_OR_NONE = Rule(lambda text: not text or SOURCE.allows(text), SOURCE.remedy)
PATTERN = Rule(lambda text: not text or _has_group(text), "use a regular expression with one (group)")
TEMPLATE = Rule(lambda text: "{problem}" in text, "write {problem} where the problem belongs")
OWN = frozenset(
    {
        *("conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize", "padding"),
        *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "messages"),
    }
)
"""What transformers' `apply_chat_template` takes itself."""

CHAT = Rule(
    lambda given: given.keys().isdisjoint(OWN),
    f"leave out what is not for the template: {', '.join(sorted(OWN))}",
)


@dataclass(config=DECLARED)
class ExampleConfig:
    """problem: as the source would pose it. answer: the whole response the model is shown for it."""

    problem: str = ""
    answer: str = ""


OF_A_SOURCE = ("parameters", "problem_field", "answer_field", "problem_pattern")
"""Settings that are written for one source."""


@dataclass(config=DECLARED)
class DataConfig:
    """Problems to train on and to hold out, and the prompt around them.

    A problem may be a conversation that ends with the user's message. Of a worked solution, what follows its last
    `####` or is in its last `\\boxed{}` is the answer.
    """

    source: str = setting("reasoning_gym:chain_sum", "our choice: needs no network", rule=SOURCE, replaces=OF_A_SOURCE)
    """Source of the training problems: `hub:OWNER/NAME[/CONFIG][@REVISION][:split]` of the Hugging Face hub, where a
    revision is a commit, a tag or a branch and without one the newest counts; `file:PATH` (jsonl, json, csv, parquet);
    `reasoning_gym:NAME`, a generator that also scores the answers (one that would run them as code is refused); or
    `import:MODULE:FUNCTION`, a function that yields rows."""
    parameters: dict[str, Any] = setting({}, "our choice")
    """Parameters of the reasoning_gym generator or the function."""
    size: int | None = setting(None, "our choice", ge=1, le=10**7)
    """How many problems to train on; all when null. A generator draws so many, from which the held-out ones are taken
    too."""
    scan: int | None = setting(None, "our choice", ge=1, le=10**7)
    """Rows of a source to read at most, the first ones, streamed from the hub instead of downloaded whole; all when
    null."""
    hub_timeout_s: float = setting(600.0, "our choice", gt=0, le=86400, resumable=True)
    """Seconds to wait for the hub in all."""
    eval_source: str = setting("", "our choice", rule=SOURCE_OR_NONE)
    """Source of the held-out problems; when empty, the first `eval.problems` of the shuffled training source."""
    overlap: str = setting(
        "drop", "our choice: a result on problems that were trained on says nothing", choices=("drop", "report_only")
    )
    """What becomes of training problems that are, or share most of their text with, one of eval_source."""
    problem_field: str = setting("", "our choice")
    """Column of the problem; guessed when empty."""
    answer_field: str = setting("", "our choice")
    """Column of the answer; guessed when empty."""
    problem_pattern: str = setting("", "our choice", rule=PATTERN)
    """A regular expression whose first group is the part of the source's problem to use."""
    system: str | None = setting(None, "the conversation's or chat template's own, if it has one")
    """System message."""
    chat_settings: dict[str, Any] = setting({}, "the chat template's own", rule=CHAT)
    """What the model's chat template takes besides the messages, such as {enable_thinking: false}."""
    template: str = setting("{problem}", "our choice", rule=TEMPLATE)
    """The user's message; {problem} is replaced by the problem."""
    examples: list[ExampleConfig] = setting([], "our choice")
    """Solved problems shown before the real one, as earlier turns of the conversation."""

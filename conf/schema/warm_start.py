"""The warm start: imitation of right responses before reinforcement learning."""

from pydantic.dataclasses import dataclass

from microbudget_rl.conf.schema.data import SOURCE, ExampleConfig
from microbudget_rl.conf.settings import DECLARED, Rule, setting

SELF = "self"
"""The source that is the model itself."""

PASSES = 3
"""Most passes over the responses, our choice: more of them learn a few hundred responses by heart."""

SAMPLING_SHARE = 0.5
"""Largest fraction of the warm start's time in which the model samples or solutions are verified."""

SOURCE_OR_SELF = Rule(
    lambda text: text in ("", SELF) or (SOURCE.allows(text) and not text.startswith("reasoning_gym:")),
    f"use {SELF}, nothing for no warm start, or a source with solutions: hub:…, file:… or import:…, as in data.source",
)


@dataclass(config=DECLARED, frozen=True)
class WarmStartConfig:
    """The warm start: the learner imitates right responses before reinforcement learning, so that a model that never
    solves a problem, or never writes an answer as asked, has rewards to learn from. Version 0 is the model after it.
    A layer that gives warm_start.source resets all other keys here that it does not set.
    """

    source: str = setting("", "our choice: no warm start", rule=SOURCE_OR_SELF)
    """Origin of the responses: self (the model's own right ones to training problems), a source as data.source with a
    column of worked solutions, or empty for no warm start."""
    solution_field: str = setting("", "our choice: solution, or a worked answer")
    """Column of the worked solution; when empty, solution, or else the answer's column, if it has worked solutions."""
    few_shot: list[ExampleConfig] = setting([], "our choice")
    """Few-shot examples that the model is shown only while it samples its own responses: they are not in the prompt
    that is learned."""
    per_problem: int = setting(4, "our choice: a variety of problems teaches more", ge=1, le=1024)
    """Most responses to one problem that are learned: those with the largest reward, and of these the shortest."""
    demonstrations: int = setting(512, "our choice: enough for a form, not for a subject", ge=1, le=10**6)
    """Most responses in total."""
    demonstrations_per_update: int = setting(32, "our choice", ge=1, le=2**15)
    """Responses in one update."""
    learning_rate: float = setting(1e-4, '"LoRA without regret": ten times that of full fine-tuning', ge=1e-9, le=1)
    """Learning rate at the beginning; it falls linearly to zero over the warm start."""
    fraction: float = setting(0.1, "our choice: the budget is for reinforcement learning", gt=0, le=0.5)
    """Most of the budget's time that the warm start may take, sampling included."""

    @property
    def from_itself(self) -> bool:
        """Whether the model's own responses are learned."""
        return self.source == SELF

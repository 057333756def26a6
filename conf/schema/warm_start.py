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
    """The warm start: before reinforcement learning, the learner imitates right responses. It helps a model that never
    solves a problem, or never writes an answer in the requested form, and so earns no reward. Version 0 is the model
    after it. A recipe or command line that gives warm_start.source resets all other keys here that it does not set.
    """

    source: str = setting("", "our choice", rule=SOURCE_OR_SELF)
    """Origin of the responses: self (the model's own right responses to training problems) or a source with a column of
    worked solutions."""
    solution_field: str = setting("", "our choice")
    """Column of the worked solution. Empty: solution, or the answer's column if it contains worked solutions."""
    few_shot: list[ExampleConfig] = setting([], "our choice")
    """Few-shot examples that the model sees while it samples its own responses. They are not in the prompt that is
    learned."""
    per_problem: int = setting(4, "our choice: a variety of problems teaches more", ge=1, le=1024)
    """Largest number of responses per problem: those with the largest reward, and of these the shortest."""
    demonstrations: int = setting(512, "our choice: enough to teach a form, but not a subject", ge=1, le=10**6)
    """Largest number of responses in total."""
    demonstrations_per_update: int = setting(32, "our choice", ge=1, le=2**15)
    """Responses per update."""
    learning_rate: float = setting(1e-4, '"LoRA without regret": ten times the rate of full fine-tuning', ge=1e-9, le=1)
    """Initial learning rate. It falls linearly to zero."""
    fraction: float = setting(0.1, "our choice: the budget is for reinforcement learning", gt=0, le=0.5)
    """Largest fraction of the budget's time for the warm start, sampling included."""

    @property
    def from_itself(self) -> bool:
        """Whether the model's own responses are learned."""
        return self.source == SELF

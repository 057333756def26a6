"""The reward of a sample, and the processes that verify answers."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import StrictBool, StrictFloat
from pydantic.dataclasses import dataclass

from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.settings import DECLARED, MOST, SECTION, Rule, section, setting

PARTS = frozenset({"accuracy", "boxed", "cosine", "format", "mean", "overlong"})
"""Names after `reward/` in metrics.jsonl that no user's function may have."""

PAIR = Rule(
    lambda value: len(value) == 2 and all(abs(number) <= MOST for number in value),
    "use two numbers, such as [1.0,0.5]",
)


@dataclass(config=DECLARED, frozen=True)
class CustomRewardConfig:
    """A user's part of the reward, see RewardConfig.custom.

    function: `module.path:function`, or `python.DIGEST:NAME` of a function that `microbudget_rl.train` has shipped.
    weight: its weight. network: whether it may use the network.
    """

    function: str = ""
    weight: StrictFloat = 1.0
    network: StrictBool = False

    @property
    def name(self) -> str:
        return self.function.rpartition(":")[2]


CUSTOM = Rule(
    lambda parts: (
        len({part.name for part in parts} - PARTS) == len(parts)
        and all(re.fullmatch(r"[\w.]+(?<!\.py):\w+", part.function) and abs(part.weight) <= MOST for part in parts)
    ),
    "use entries {function: module.path:function, weight: 1.0}, no .py, each function of another name (by `def`, since "
    f"a lambda has none), none of them {', '.join(sorted(PARTS))}",
)


@dataclass(config=DECLARED, frozen=True)
class RemoteConfig:
    """Limits of calls to other machines, for each function in reward.custom with `network: true` and each node with
    reward workers. A call that gets no connection, or a status of 429 or from 500 on, is repeated up to three times,
    after growing pauses or those that the server requests. A replaced worker starts a new minute.
    """

    deadline_s: float = setting(30.0, "our choice", gt=0, le=3600)
    """Seconds that a call may take, repetitions included."""
    concurrency: int = setting(16, "our choice: few model servers answer more", ge=1)
    """Largest number of calls at the same time. Further calls wait."""
    per_minute: float = setting(60_000.0, "our choice: practically no limit", gt=0, le=60_000)
    """Largest number of calls that begin in a minute, evenly spread. Repetitions do not count."""


@dataclass(config=DECLARED, frozen=True)
class RewardConfig:
    """The reward of a sample: a weighted sum of parts, each logged without its weight. docs/reference/grading.md says
    how answers are verified. A recipe or command line that names a preset sets the keys from accuracy to after_thinking
    to the preset's values, except those that it gives itself. The defaults are those of preset paper.
    """

    preset: str = setting("paper", "the paper's", choices=tuple(table("rewards")))
    """Name of a set of values. conf/rewards.yaml lists them all."""
    accuracy: float = setting(1.0, SECTION, ge=0)
    """Weight of the accuracy: 1 for a correct answer."""
    format: float = setting(0.2, SECTION, ge=0)
    """Weight of the format: 1 for `<think>…</think>` followed by the answer. The opening tag may be missing, because
    some chat templates put it into the prompt."""
    boxed: float = setting(0.0, SECTION, ge=0)
    """Weight of the box: 1 for a readable `\\boxed{}` in the response."""
    cosine: float = setting(0.0, SECTION, ge=0)
    """Weight of accuracy scaled by length, up to rollout.max_response_tokens (arXiv 2502.03373)."""
    cosine_correct: list[StrictFloat] = setting([1.0, 0.5], SECTION, rule=PAIR)
    """Cosine reward of a correct answer, at length 0 and at the limit."""
    cosine_wrong: list[StrictFloat] = setting([-1.0, -0.5], SECTION, rule=PAIR)
    """Cosine reward of a wrong answer, at length 0 and at the limit."""
    after_thinking: bool = setting(False, SECTION, affects="verdict")
    """Whether only a box after the last `</think>` counts as an answer."""
    custom: list[CustomRewardConfig] = setting([], "our choice", rule=CUSTOM, affects="reward verdict")
    """Your own functions, as further parts of the reward; docs/how-to/rewards.md explains them. A function is called as
    `function(prompt, response, gold, **columns)`, with the columns that it names, or all with `**`; as
    `function(samples)`, with all responses to a problem, if this is its only parameter; or as in TRL, if it has a
    parameter `completions`. It may be `async def`. It returns a number from −1,000,000 to 1,000,000, or a list of
    numbers, and is logged under its name. It runs in its own worker process, under the limits of a verification. With
    `network: true` it may use the network, within reward.remote."""
    sandbox: bool = setting(True, "our choice: anybody may have written an answer's text", affects="operation")
    """Whether the worker processes of your functions are denied the network (unless `network: true`), new processes,
    writing files, unusual environment variables, and reading files outside Python, the project and the function's
    folder. Processes that verify answers always are. Set false for a function that runs code, calls a model or needs a
    token: it then has all your permissions, and so has code that it runs. Its import, which may load a model, is never
    restricted."""
    timeout: str = setting("mask", "our choice: a deadline can be the machine's fault", choices=("mask", "wrong"))
    """What happens to a sample if its verification or a function takes too long or crashes, or if a function raises an
    error or returns no valid number. mask: it is not learned from, and does not count in the group's baseline. wrong:
    it counts as wrong. Pass@1 depends only on the verdict. `verify/timeout` counts timeouts."""
    deadline_s: float = setting(
        2.0, "our choice: an ordinary answer takes milliseconds", gt=0, le=3600, affects="verdict"
    )
    """CPU seconds to verify one answer. By the clock, up to five times as many if the process lacks a core."""
    memory_mib: int = setting(1024, "our choice: an ordinary answer takes ten", ge=256, le=2**24, affects="verdict")
    """MiB of memory that a worker process may allocate."""
    workers: int | None = setting(None, "our choice", ge=1, le=1024, affects="operation")
    """Worker processes that verify answers. Null: derived from the cores."""
    remote: RemoteConfig = section(RemoteConfig, affects="operation")

    @property
    def weighs_answers(self) -> bool:
        """Whether a right answer earns more than a wrong one."""
        return weighs_answers({"reward.accuracy": self.accuracy, "reward.cosine": self.cosine})


def weighs_answers(settings: Mapping[str, Any]) -> bool:
    """Whether a right answer earns more than a wrong one. Otherwise a run is judged by its reward, not by pass@1.

    settings: a run's, by dotted key; of one that has not begun, only those that were given.
    """
    return bool(settings.get("reward.accuracy", 1.0) or settings.get("reward.cosine"))


def formula(settings: Mapping[str, Any]) -> str:
    """Write the reward of a sample as `1 · accuracy + 0.2 · format`. settings: a run's, by dotted key."""
    weights = {name: settings.get(f"reward.{name}") for name in ("accuracy", "format", "boxed", "cosine")}
    weights |= {part["function"].rpartition(":")[2]: part["weight"] for part in settings.get("reward.custom") or []}
    weights["overlong"] = -bool(settings.get("algorithm.overlong_buffer"))
    terms = [f"{'−' if weight < 0 else '+'} {abs(weight):g} · {name}" for name, weight in weights.items() if weight]
    return " ".join(terms).removeprefix("+ ")

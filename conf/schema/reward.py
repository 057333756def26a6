"""The reward of a sample, and the processes that verify answers."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import StrictBool, StrictFloat
from pydantic.dataclasses import dataclass

from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.settings import DECLARED, MOST, Rule, section, setting

PARTS = frozenset({"accuracy", "boxed", "cosine", "format", "mean", "overlong"})
"""Names after `reward/` in metrics.jsonl that no user's function may have."""

PRESET = "conf/rewards.yaml, preset paper"

PAIR = Rule(
    lambda value: len(value) == 2 and all(abs(number) <= MOST for number in value),
    "use two numbers: the values of the shortest and of the longest response",
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
    "use entries {function: module.path:function, weight: 1.0}, no .py, each function of another name, none of them "
    f"{', '.join(sorted(PARTS))}",
)


@dataclass(config=DECLARED, frozen=True)
class RemoteConfig:
    """Limits of calls to other machines: of each function in reward.custom with `network: true`, on each node with
    reward workers. A call without a connection, or with status 429 or from 500 on, is repeated up to three times, after
    growing pauses or those that the server asks for. A replaced worker begins its minute anew.
    """

    deadline_s: float = setting(30.0, "our choice", gt=0, le=3600)
    """Seconds by the clock that a call may take, with its repetitions."""
    concurrency: int = setting(16, "our choice: few servers of models answer more at once", ge=1)
    """Most calls at a time; further ones wait."""
    per_minute: float = setting(60_000.0, "our choice: in effect none", gt=0, le=60_000)
    """Most calls that begin in a minute, evenly spread; repetitions do not count."""


@dataclass(config=DECLARED, frozen=True)
class RewardConfig:
    """The reward of a sample: a weighted sum of parts, each logged unweighted. docs/reference/grading.md has the rules
    by which answers are verified.

    A layer that names a preset sets the keys from accuracy to after_thinking to the preset's values, except those it
    sets itself. (`algorithm.overlong_buffer` lowers the reward of responses near the limit.)
    """

    preset: str = setting("paper", "the paper", choices=tuple(table("rewards")))
    """Name of a set of values; conf/rewards.yaml spells them out."""
    accuracy: float = setting(1.0, PRESET, ge=0)
    """Weight of the accuracy, which is 1 for a correct answer."""
    format: float = setting(0.2, PRESET, ge=0)
    """Weight of the format, which is 1 for <think>…</think> followed by the answer; the opening tag may be missing,
    since some chat templates put it into the prompt."""
    boxed: float = setting(0.0, PRESET, ge=0)
    """Weight of a readable `\\boxed{}` in the response, 0 or 1."""
    cosine: float = setting(0.0, PRESET, ge=0)
    """Weight of accuracy scaled by length in tokens, clamped at rollout.max_response_tokens (arXiv 2502.03373)."""
    cosine_correct: list[StrictFloat] = setting([1.0, 0.5], PRESET, rule=PAIR)
    """Cosine reward of a correct answer, at length 0 and at the limit."""
    cosine_wrong: list[StrictFloat] = setting([-1.0, -0.5], PRESET, rule=PAIR)
    """Cosine reward of a wrong answer, at length 0 and at the limit."""
    after_thinking: bool = setting(False, PRESET, affects="verdict")
    """Whether only a box after the last </think> counts as an answer."""
    custom: list[CustomRewardConfig] = setting([], "our choice", rule=CUSTOM, affects="reward verdict")
    """Further parts, computed by a user's functions. Each is called as function(prompt, response, gold, **columns),
    with the columns of the row that it names, or all for a `**`; or as function(samples), if that is its only
    parameter, for all responses to a problem; or as TRL does, if it has a parameter `completions`. All may be `async
    def`. It runs in a worker process of its own, under the limits of a verification, and returns a number from
    −1,000,000 to 1,000,000, or a list of them, which is logged under its name. With `network: true` in its entry it may
    use the network, within reward.remote."""
    sandbox: bool = setting(True, "our choice: an answer is anybody's text", affects="operation")
    """Whether the worker processes of user functions are denied the network (but for `network: true`), new processes,
    writing files, unusual environment variables, and reading files outside Python, the project and the function's
    folder. Processes that verify answers always are. Set false for a function that runs code, calls a model or needs a
    token: it then has all your permissions, and so has code that it runs. Its import, which may read a model, is never
    restricted."""
    timeout: str = setting("mask", "our choice: a deadline can be the machine's fault", choices=("mask", "wrong"))
    """Treatment of a sample whose verification or user function timed out or crashed its worker, or whose user function
    raised an error or returned no valid number: mask (it is not learned from and does not count in its group's
    baseline) or wrong. Pass@1 only depends on the verdict. Absurdly large
    numbers are always unparsable and never reach the deadline. `verify/timeout` counts timeouts."""
    deadline_s: float = setting(
        2.0, "our choice: an ordinary answer takes milliseconds", gt=0, le=3600, affects="verdict"
    )
    """CPU seconds to verify one answer; by the clock, up to five times as many while the process lacks a core."""
    memory_mib: int = setting(1024, "our choice: an ordinary answer takes ten MiB", ge=256, le=2**24, affects="verdict")
    """MiB of memory that a worker process may allocate."""
    workers: int | None = setting(None, "follows from the cores", ge=1, le=1024, affects="operation")
    """Worker processes that verify answers."""
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

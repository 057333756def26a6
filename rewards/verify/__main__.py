"""Verify answers and print the verdicts.

    python -m rewards.verify FILE.jsonl [conf=NAME]

Examples:

    python -m rewards.verify answers.jsonl
    python -m rewards.verify answers.jsonl conf=paper
    python -m rewards.verify answers.jsonl conf=quickstart | head

Each input line is {"gold": …, "response": …}. Each output line is one verdict, in the same order, with the fields of
`actors.messages.Verdict`. With a recipe, it also contains the `reward` and its `parts`, and "tokens" of an input line
states the response's length, 0 by default. A line without a reference answer or a response, each a text or a number, is
not graded: its status is `invalid` and its score null. The exit code is then 2, after all verdicts.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from microbudget_rl.actors.messages import Problem, Sample
from microbudget_rl.conf.arguments import words_and_options
from microbudget_rl.conf.command import command
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import require
from microbudget_rl.conf.load import load
from microbudget_rl.conf.parsing import reason
from microbudget_rl.conf.schema import RewardConfig
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.weighted_sum import RewardFunction, reward_function

INVALID: dict[str, Any] = {"score": None, "status": "invalid", "extracted": None, "milliseconds": None}
"""Printed for a line that cannot be graded."""


def read_samples(path: str) -> Iterator[tuple[Problem, Sample] | None]:
    """Yield a problem and a sample per line, None for an invalid one."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            yield from map(read_sample, file)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read '{path}' ({reason(error)}): give a .jsonl file") from error


def read_sample(line: str) -> tuple[Problem, Sample] | None:
    try:
        row = json.loads(line)
        gold, response = (str(row[key]) for key in ("gold", "response") if isinstance(row[key], str | int | float))
        tokens = int(row.get("tokens", 0))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    sample = Sample(range(min(tokens, sys.maxsize)), (), response, "stop")  # a range takes no memory
    return Problem(id="", prompt="", prompt_ids=(), gold=gold), sample


@command("verify", __doc__)
def main(arguments: list[str]) -> int:
    """Run the command. Return 0, or 2 for a wrong call, an unreadable file or invalid lines."""
    words, given = words_and_options(arguments, {"conf": ()})
    if len(words) != 1:
        raise BadInput(f"name one file, such as answers.jsonl, not {' '.join(words) or 'none'}")
    require("math_verify")
    chosen = reward_function(load([f"conf={given['conf']}"])) if given else RewardFunction(RewardConfig())
    statuses = Counter[str]()
    with VerifierPool(chosen, workers=len(os.sched_getaffinity(0))) as pool:
        for valid, samples in groupby(read_samples(words[0]), bool):
            rewards: Iterator[Any] = pool.rewards_all(samples) if valid else samples  # type: ignore  # noqa: B031
            for reward in rewards:
                line = asdict(reward.verdict) if valid else INVALID
                if given and valid:
                    line |= {"reward": reward.total, "parts": reward.parts}
                    line |= {"failure": reward.failure, "masked": reward.masked}
                statuses[line["status"]] += 1
                print(json.dumps(line), flush=True)
    if invalid := statuses[INVALID["status"]]:
        remedy = "give both as texts or numbers"
        raise BadInput(f"{words[0]}: {invalid} of {statuses.total()} lines have no gold or no response: {remedy}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

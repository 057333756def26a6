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

OF_REWARD = {"reward": "total", "parts": "parts", "failure": "failure", "masked": "masked"}
"""Further keys of a line with a recipe, and the names of these fields of `Reward`."""

SHOWN = 10
"""Most numbers of invalid lines in a message."""


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
        gold, response = row["gold"], row["response"]
        tokens = int(row.get("tokens", 0))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if not (isinstance(gold, str | int | float) and isinstance(response, str | int | float)):
        return None
    sample = Sample(range(min(tokens, sys.maxsize)), (), str(response), "stop")  # a range takes no memory
    return Problem(id="", prompt="", prompt_ids=(), gold=str(gold)), sample


@command("verify", __doc__)
def main(arguments: list[str]) -> int:
    """Run the command. Return 0, or 2 for a wrong call, an unreadable file or invalid lines."""
    words, given = words_and_options(arguments, {"conf": ()})
    if len(words) != 1:
        raise BadInput(f"name one file, such as answers.jsonl, not {' '.join(words) or 'none'}")
    require("math_verify")
    chosen = reward_function(load([f"conf={given['conf']}"])) if given else RewardFunction(RewardConfig())
    lines, invalid = 0, list[int]()
    with VerifierPool(chosen, workers=len(os.sched_getaffinity(0))) as pool:
        for valid, samples in groupby(read_samples(words[0]), bool):
            for reward in pool.rewards_all(samples) if valid else samples:
                lines += 1
                line = asdict(reward.verdict) if valid else INVALID
                if given:
                    line |= {key: getattr(reward, name, None) for key, name in OF_REWARD.items()}
                print(json.dumps(line), flush=True)
                invalid += [] if valid else [lines]
    if invalid:
        shown = ", ".join(map(str, invalid[:SHOWN])) + ", …" * (len(invalid) > SHOWN)
        raise BadInput(
            f"{words[0]}: {len(invalid)} of {lines} lines have no gold or no response, and are not graded (line"
            f" {shown}): give both as texts or numbers"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

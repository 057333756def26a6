"""Verify answers and print the verdicts.

    python -m rewards.verify FILE.jsonl [conf=NAME]

Examples:

    python -m rewards.verify answers.jsonl
    python -m rewards.verify answers.jsonl conf=paper
    python -m rewards.verify answers.jsonl conf=quickstart | head

Each input line is {"gold": …, "response": …}. Each output line is one verdict, in the same order, with the fields of
`actors.messages.Verdict`. With a recipe, it also contains the `reward` and its `parts`, and "tokens" of an input line
states the response's length, 0 by default. A line that cannot be read, or whose reference answer or response cannot be
parsed, is `unparsable`.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

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


def read_samples(path: str) -> Iterator[tuple[Problem, Sample]]:
    """Yield a problem and a sample per line; an unreadable line gives empty texts, which are unparsable."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            yield from map(read_sample, file)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read '{path}' ({reason(error)}): give a .jsonl file") from error


def read_sample(line: str) -> tuple[Problem, Sample]:
    try:
        row = json.loads(line)
        gold, response = ("" if row[key] is None else str(row[key]) for key in ("gold", "response"))
        tokens = int(row.get("tokens", 0))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        gold, response, tokens = "", "", 0
    sample = Sample(range(min(tokens, sys.maxsize)), (), response, "stop")  # a range takes no memory
    return Problem(id="", prompt="", prompt_ids=(), gold=gold), sample


@command("verify", __doc__)
def main(arguments: list[str]) -> int:
    """Run the command. Return 0, or 2 for a wrong call or an unreadable file."""
    words, given = words_and_options(arguments, {"conf": ()})
    if len(words) != 1:
        raise BadInput(f"name one file, such as answers.jsonl, not {' '.join(words) or 'none'}")
    require("math_verify")
    chosen = reward_function(load([f"conf={given['conf']}"])) if given else RewardFunction(RewardConfig())
    with VerifierPool(chosen, workers=len(os.sched_getaffinity(0))) as pool:
        for reward in pool.rewards_all(read_samples(words[0])):
            line = asdict(reward.verdict)
            if given:
                line |= {"reward": reward.total, "parts": reward.parts}
                line |= {"failure": reward.failure, "masked": reward.masked}
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""See what the grader thinks of your data:

    python -m rewards.verify FILE.jsonl

reads one {"gold": …, "response": …} a line and prints one verdict a line, in order, with the fields of
`actors.messages.Verdict`. It never stops at a bad row: a line that cannot be read, or a gold or response that cannot be
parsed, is `unparsable`.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

from conf.errors import BadInput
from conf.schema import RewardConfig
from rewards.pool import VerifierPool


def read_pairs(path: str) -> Iterator[tuple[str, str]]:
    """Gold and response of every line; empty strings, and so an unparsable verdict, for a line that is no such row."""
    try:
        file = open(path, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - closed below
    except OSError as error:
        raise BadInput(f"verify: cannot read '{path}' ({error.strerror}): give a .jsonl file") from error
    with file:
        for line in file:
            try:
                row = json.loads(line)
                yield str(row["gold"]), str(row["response"])
            except (ValueError, TypeError, KeyError, RecursionError):
                yield "", ""


def main(arguments: list[str]) -> int:
    """The command. Exit code 0, or 2 for a wrong call or an unreadable file."""
    try:
        if len(arguments) != 1:
            raise BadInput(f"verify: {len(arguments)} arguments instead of one: python -m rewards.verify FILE.jsonl")
        pairs = read_pairs(arguments[0])
        with VerifierPool(RewardConfig(), workers=len(os.sched_getaffinity(0))) as pool:
            for verdict in pool.judge_all(pairs):
                print(json.dumps(asdict(verdict)), flush=True)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The commonest ways in which responses failed, each with a sample."""

from collections import defaultdict
from collections.abc import Iterator

from actors.evaluation.statistics import Samples
from actors.messages import Status
from actors.storage.documents import EvaluatedSample
from conf.errors import printable

COMMONEST = 5

SHOWN = 100
"""Characters shown of the beginning of a text, and of its end."""


def commonest(samples: Samples) -> Iterator[str]:
    """Yield a line for each of the commonest ways to fail: how many of the responses, and the first such sample."""
    ways = defaultdict[str, list[EvaluatedSample]](list)
    rows = [row for of_problem in samples for row in of_problem]
    for row in rows:
        if way := way_to_fail(row):
            ways[way].append(row)
    for way, failed in sorted(ways.items(), key=lambda item: -len(item[1]))[:COMMONEST]:
        row = failed[0]
        yield (
            f"{len(failed) / len(rows):.1%} {way}: {_short(row.prompt, 0)} → {_short(row.response)}"
            f" (reference answer {_short(row.gold)})"
        )


def way_to_fail(row: EvaluatedSample) -> str:
    """Return how a response failed, empty for a right one."""
    if row.failure:
        return f"the reward function failed: {_short(row.failure.partition(', on problem ')[0])}"
    cut = row.finish_reason == "length"
    match row.status:
        case Status.CORRECT:
            return ""
        case Status.UNPARSABLE if row.extracted:
            return f"an answer that cannot be read{', cut off at the limit' if cut else ''}"
        case Status.UNPARSABLE:
            return "cut off at the limit without an answer" if cut else "ended without an answer in a box"
        case Status.WRONG:
            return f"a wrong answer{', cut off at the limit' if cut else ''}"
    return f"verifier: {row.status}"


def _short(text: str, head: int = SHOWN) -> str:
    """Return a text on one line, as it may be shown on any screen. head: characters of its beginning to show."""
    return printable(text if len(text) <= head + SHOWN else f"{text[:head]}… {text[-SHOWN:]}")

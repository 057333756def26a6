"""`python -m tests.hostile.battery [KIND …]`: every bad input, and how many of each kind end as they should not."""

import contextlib
import io
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.hostile import adapters, chats, data, models, names, runs, values
from tests.hostile.case import Case
from tests.hostile.commands import call, files, shortcomings
from tests.hostile.stock import Stock, write_stock

KINDS = (models, adapters, chats, data, runs, values, names)


SAMPLED = {
    "model folders": 80,
    "adapters": 60,
    "chat": 27,
    "data": 75,
    "runs: report": 36,
    "runs: resume": 40,
    "runs: evaluate": 12,
    "runs: result": 8,
    "values": 70,
    "extreme numbers": 40,
    "names": 32,
}
"""Cases of each kind that every change is tested with; all of them take minutes."""


def cases() -> Iterator[Case]:
    return itertools.chain.from_iterable(kind.cases() for kind in KINDS)


def sample() -> list[Case]:
    """Return so many cases of each kind, evenly spaced."""
    every = list(cases())
    chosen = []
    for kind, count in SAMPLED.items():
        of_kind = [case for case in every if case.kind == kind]
        chosen += [of_kind[number * len(of_kind) // count] for number in range(count)]
    return chosen


def tried(case: Case, place: Path, stock: Stock) -> str:
    """Try a case in an empty folder and return what is short of the contract; empty if nothing is."""
    arguments = case.prepare(place, stock)
    before = files(place)
    with contextlib.chdir(place):
        ending = call(case.command, *arguments)
    short = shortcomings(ending, case.refused)
    after = files(place)
    lost = [name for name, content in before.items() if after.get(name) != content]
    if not short and lost and not (case.resumes and ending.code == 0):
        return f"{lost[0]} was changed"
    return short


def main(wanted: list[str]) -> int:
    counts: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stderr(io.StringIO()):
            stock = write_stock(Path(folder) / "stock")
        for number, case in enumerate(cases()):
            if wanted and not any(word in case.id for word in wanted):
                continue
            place = Path(folder) / str(number)
            place.mkdir()
            counts[case.kind] += 1
            if short := tried(case, place, stock):
                failed[case.kind] += 1
                print(
                    f"{case.id.encode('unicode_escape').decode()}: {short}"[:400]
                    .encode("ascii", "backslashreplace")
                    .decode(),
                    flush=True,
                )
    for kind, count in counts.items():
        print(f"{kind:20} {failed[kind]:4} of {count}")
    print(f"{'all':20} {failed.total():4} of {counts.total()}")
    return int(failed.total() > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

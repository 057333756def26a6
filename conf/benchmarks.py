"""The sets of problems that an evaluation may ask for."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from conf.errors import BadInput
from conf.suggestions import hint

HELD_OUT = "heldout"
"""The recipe's own held-out problems."""

PART = r"\w[\w.-]*"
"""Of a name on the hub, which neither begins with a dot nor leads elsewhere."""

SOURCES = re.compile(
    rf"(hub:{PART}/{PART}(/[^:/@]+)?(@{PART})?(:[^:/]+)?|file:[^\0]+|reasoning_gym:\w+|import:\w+(\.\w+)*:\w+)",
    re.ASCII,
)
SOURCE_FORMS = "hub:OWNER/NAME[/CONFIG][@REVISION][:split], file:PATH, reasoning_gym:NAME or import:MODULE:FUNCTION"


@dataclass(frozen=True)
class Benchmark:
    """A set of problems to evaluate on.

    name: of its files and its row in tables.
    source: as data.source, or HELD_OUT.
    problem_field, answer_field: its columns, empty for those that `data` names or else are guessed.
    """

    name: str
    source: str
    problem_field: str = ""
    answer_field: str = ""


@cache
def known() -> dict[str, Benchmark]:
    """Return the benchmarks of benchmarks.yaml, by name."""
    table = yaml.safe_load(Path(__file__).with_name("benchmarks.yaml").read_text("utf-8"))
    return {name: Benchmark(name, **row) for name, row in table.items()}


def find_benchmarks(asked: list[str]) -> list[Benchmark]:
    """Return the benchmarks asked for, by name or as a source; BadInput for an unknown name, or two of one name."""
    found: dict[str, Benchmark] = {}
    for entry in asked:
        benchmark = known().get(entry) or _of_source(entry)
        if (other := found.get(benchmark.name)) is not None:
            raise BadInput(
                f"benchmarks: {other.source} and {benchmark.source} would both be called {benchmark.name}; leave one "
                "out, or give a file another name"
            )
        found[benchmark.name] = benchmark
    return list(found.values())


def _of_source(entry: str) -> Benchmark:
    if entry == HELD_OUT:
        return Benchmark(HELD_OUT, HELD_OUT)
    if not SOURCES.fullmatch(entry):
        names = [*known(), HELD_OUT]
        raise BadInput(
            f"benchmarks={entry}: no such benchmark; {hint(entry, names)}use {', '.join(names)}, {SOURCE_FORMS}"
        )
    scheme, _, rest = entry.partition(":")
    name = Path(rest).stem if scheme == "file" else rest.partition("/")[2] if scheme == "hub" else rest
    return Benchmark(re.sub(r"[^\w.+-]+", "-", name), entry)

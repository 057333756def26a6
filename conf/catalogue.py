"""The tables of conf/*.yaml: GPUs, benchmarks and presets."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from microbudget_rl.conf.errors import BadInput, hint

GPU_DTYPE = "bfloat16"
"""Data type of models on a GPU, the only one that both vLLM's LoRA kernels and the learner compute in."""

COMMON = re.compile(r"NVIDIA|GEFORCE|TESLA|QUADRO|RTX|SXM\d*|GI?B|[ _-]")
"""Parts of a GPU's name that distinguish it from no other."""

BY_MEMORY = re.compile(r"([1-9]\d{0,2}) ?GI?B", re.IGNORECASE)
"""Pattern of a GPU that is given by its memory alone."""

MEMORY = re.compile(r"[ _-](\d+) ?GI?B$", re.IGNORECASE)

SAME_MEMORY = 0.1
"""Fraction by which the memory in a GPU's name may differ from what its driver reports: 22.5 GiB of 24 GB."""

HELD_OUT = "heldout"
"""Name of the recipe's own held-out problems."""

PART = r"\w[\w.-]*"
"""Pattern of a name on the hub: no slash, and no dot or dash at its start."""

SOURCES = re.compile(
    rf"(hub:{PART}/{PART}(/[^:/@]+)?(@{PART})?(:[^:/]+)?|file:[^\0]+|reasoning_gym:\w+|import:\w+(\.\w+)*(?<!\.py):\w+)",
    re.ASCII,
)
SOURCE_FORMS = (
    "file:PATH, such as file:my.csv, hub:OWNER/NAME[/CONFIG][@REVISION][:split], reasoning_gym:NAME or"
    " import:MODULE:FUNCTION, without .py"
)


@cache
def table(name: str) -> dict[str, Any]:
    """Return the content of a YAML file in this folder."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text("utf-8"))
    return content


@dataclass(frozen=True)
class Device:
    """A GPU.

    memory_gib: GiB that the driver reports.
    bandwidth_gbs: 10⁹ bytes/s.
    bfloat16: dense rate, 10¹² FLOP/s, None for a GPU that cannot compute in it.
    """

    name: str
    memory_gib: float
    bandwidth_gbs: float
    bfloat16: float | None

    @property
    def rates(self) -> dict[str, float]:
        """FLOP/s by data type, 0 for one that the GPU cannot compute in."""
        return {GPU_DTYPE: (self.bfloat16 or 0.0) * 1e12}


@cache
def devices() -> dict[str, Device]:
    return {name: Device(name, **row) for name, row in table("devices").items()}


def known_as(name: str) -> str:
    """Return the name in devices.yaml of a GPU as people call it, such as RTX 4090 or A100 80GB; for 12 GiB, 12GB. One
    with other memory than the listed one stays unknown: its speed differs as well.
    """
    if name.lower() in ("auto", "cpu"):
        return name.lower()
    if size := BY_MEMORY.fullmatch(name):
        return f"{size[1]}GB"
    # What fits an A100-40 fits both.
    known = {"A100": "A100-40"} | {COMMON.sub("", device.upper()): device for device in devices()}
    listed_name, size = known.get(COMMON.sub("", name.upper())), MEMORY.search(name)
    if not listed_name and size and (model := known.get(COMMON.sub("", name[: size.start()].upper()))):
        listed = devices()[model].memory_gib
        listed_name = model if abs(listed - int(size[1])) < SAME_MEMORY * listed else None
    return listed_name or name


@dataclass(frozen=True)
class Benchmark:
    """A set of problems to evaluate on.

    name: the name of its files and its row in tables.
    source: as data.source, or HELD_OUT.
    problem_field, answer_field: its columns. Empty means those of `data`, or guessed ones.
    problems: their number, for plans; None if it is not known.
    key, n, limit: the setting that names it, and what it asks for, if that is an entry of `eval.benchmarks`.
    """

    name: str
    source: str
    problem_field: str = ""
    answer_field: str = ""
    problems: int | None = None
    key: str = "benchmarks"
    n: int = 0
    limit: int | None = None


def benchmarks() -> dict[str, Benchmark]:
    return {name: Benchmark(name, **row) for name, row in table("benchmarks").items()}


def find_benchmarks(requested: list[str]) -> list[Benchmark]:
    """Return the benchmarks that are named or given as a source. Raises BadInput for an unknown or repeated name."""
    by_name: dict[str, Benchmark] = {}
    for entry in requested:
        benchmark = find_benchmark(entry)
        if (other := by_name.get(benchmark.name)) is not None:
            raise BadInput(
                f"benchmarks: {other.source} and {benchmark.source} would both be called {benchmark.name}; leave one "
                "out, or give a file another name"
            )
        by_name[benchmark.name] = benchmark
    return list(by_name.values())


def find_benchmark(entry: str, key: str = "benchmarks") -> Benchmark:
    """Return the benchmark that is named or given as a source. key: the setting that does, for messages."""
    names = [*benchmarks(), *[HELD_OUT] * (key == "benchmarks")]  # a run evaluates on them in any case
    if entry in names:
        return benchmarks().get(entry) or Benchmark(HELD_OUT, HELD_OUT)
    if not SOURCES.fullmatch(entry):
        raise BadInput(f"{key}={entry}: no such benchmark; {hint(entry, names)}use {', '.join(names)}, {SOURCE_FORMS}")
    scheme, _, rest = entry.partition(":")
    name = Path(rest).stem if scheme == "file" else rest.partition("/")[2] if scheme == "hub" else rest
    return Benchmark(re.sub(r"[^\w.+-]+", "-", name), entry)

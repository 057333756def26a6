"""What `algorithm.mismatch` does to learning on the quickstart's sums, over seeds, learning rates and staleness.

Seeds are the outermost loop of the small model's runs. docs/mismatch.md says what was found.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

from launch.benches import small_runs
from launch.benches.small_runs import Outcome, Size, finished, in_words, small_model_at, study, vllm_engine
from launch.benches.table import FOLDER, Result, Row

if TYPE_CHECKING:
    from learner.learner import LoraLearner

RUNS = FOLDER / "mismatch-runs.jsonl"
MODEL = FOLDER / "small-model"

DEFAULT = "bypass"

UNCORRECTED = "none"
"""The learner's own probabilities as the old policy, and no weight for what the engine's differ by. No setting asks for
it: it is what the corrections are held against."""

MODES = (DEFAULT, "token_tis", "icepop", "sequence_mask", UNCORRECTED)
RATES = (1.5e-3, 3e-3)
"""One at which the small model learns steadily by default, and twice that."""
STALENESS = (1, 4)
SEEDS = range(6)

LEAST = 1e-3
"""What a default that gets nothing right any more counts as, so that there is a ratio to it."""


@dataclass(frozen=True)
class Cell(small_runs.Cell):
    mode: str

    @property
    def settings(self) -> tuple[str, ...]:
        mode = [f"algorithm.mismatch={'token_tis' if self.mode == UNCORRECTED else self.mode}"]
        if self.mode != DEFAULT:
            mode += [f"algorithm.{bound}=null" for bound in ("clip_low", "clip_high", "dual_clip")]
        return (*mode, *super().settings)

    def learner(self) -> "type[LoraLearner]":
        return uncorrected(super().learner()) if self.mode == UNCORRECTED else super().learner()


def uncorrected(learner: "type[LoraLearner]") -> "type[LoraLearner]":
    """Return a learner that takes its own probabilities for the engine's, so that every weight is 1."""

    class Uncorrected(learner):  # type: ignore[misc, valid-type]  # of a class that is imported late
        def _observe(self, *arguments: Any) -> Any:
            observed = super()._observe(*arguments)
            return replace(observed, engine=observed.old)

    return Uncorrected


def run() -> Result:
    asyncio.run(study(lambda _: cells(), Size(), small_model_at(MODEL), RUNS, vllm_engine))
    return table(finished(RUNS))


def cells() -> Iterator[Cell]:
    for seed, staleness, rate, mode in product(SEEDS, STALENESS, RATES, MODES):
        yield Cell(rate, staleness, seed, mode)


def table(runs: Sequence[Outcome]) -> Result:
    """Compare every mode with the default one at the same rate and staleness, over seeds."""
    rows, notes = [], []
    for staleness, rate, mode in product(STALENESS, RATES, MODES):
        found, default = (of_cell(runs, other, rate, staleness) for other in (mode, DEFAULT))
        if not found or not default:
            continue
        case = f"{mode}, rate {rate:g}, staleness {staleness}"
        for figure in ("end", "best"):
            ours, baseline = (fmean(run[figure] for run in side) for side in (found, default))
            rows.append(Row(case, f"heldout_pass@1_{figure}", ours, max(baseline, LEAST)))
        notes.append(f"{case}: {in_words(found)}")
    return Result(tuple(rows), {"heldout_pass@1": 1.0}, (*notes, "± is half of a 95 % interval over seeds."))


def of_cell(runs: Sequence[Outcome], mode: str, rate: float, staleness: int) -> list[Outcome]:
    """Return the runs of all seeds of a cell."""
    return [run for run in runs if (run["mode"], run["rate"], run["staleness"]) == (mode, rate, staleness)]

"""How much adapters of several ranks learn of the quickstart's sums, under each `lora.alpha_rule`, at tuned rates.

The model is as wide as the largest rank is an adapter and not the whole matrix. Every rank and rule has its own rate,
chosen by runs of a seed that is not counted; docs/ranks.md says what was found.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from conf.schema import LoraConfig
from conf.schema.model import ALPHA_RULES
from launch.benches import small_runs
from launch.benches.local_engine import LocalEngine
from launch.benches.small_runs import Outcome, Size, finished, in_words, small_model_at, study
from launch.benches.table import FOLDER, Result, Row

RUNS = FOLDER / "ranks-runs.jsonl"
WIDTH = 256
MODEL = FOLDER / f"small-model-{WIDTH}"

RANKS = (1, 8, 64, 256)
SIZE = Size(every=16, heldout_samples=4)
SEEDS = range(3)
TUNING_SEED = 100
STALENESS = 1

MOVES = (0.0125, 0.025, 0.05)
"""Alpha × rate of the first runs of each rank and rule. While B is small, Adam's step changes the weights in proportion
to this, so that the rates that suit a rank under several rules differ as the inverse of alpha."""
STEP = 2.0
"""Between neighbouring rates: beyond the best of them another is tried, as long as it is the first or last."""
MOST_RATES = 6


@dataclass(frozen=True)
class Setting:
    """A rank, and how alpha follows it."""

    rank: int
    rule: str

    @property
    def alpha(self) -> int:
        lora = LoraConfig(rank=self.rank, alpha_rule=self.rule)
        lora.settle_alpha()
        return lora.alpha

    def cell(self, rate: float, seed: int) -> "Cell":
        return Cell(rate, STALENESS, seed, self.rank, self.rule)


@dataclass(frozen=True)
class Cell(small_runs.Cell):
    rank: int
    rule: str

    @property
    def settings(self) -> tuple[str, ...]:
        return ("model.dtype=float32", f"lora.rank={self.rank}", f"lora.alpha_rule={self.rule}", *super().settings)


SETTINGS = tuple(Setting(rank, rule) for rank, rule in product(RANKS, ALPHA_RULES))


def run() -> Result:
    model = small_model_at(MODEL, WIDTH)
    asyncio.run(study(cells, SIZE, model, RUNS, lambda _, model: LocalEngine(model)))
    return table(finished(RUNS))


def cells(runs: Sequence[Outcome]) -> Iterator[Cell]:
    """Yield the runs that choose rates, then those of all settings at their best rate, seed by seed."""
    for setting in SETTINGS:
        for rate in rates(tried(runs, setting), setting.alpha):
            yield setting.cell(rate, TUNING_SEED)
    for seed, setting in product(SEEDS, SETTINGS):
        if scores := tried(runs, setting):
            yield setting.cell(max(scores, key=scores.__getitem__), seed)


def tried(runs: Sequence[Outcome], setting: Setting) -> dict[float, float]:
    """Return what a setting reached at each rate that was tried to choose one."""
    return {run["rate"]: run["end"] for run in of_setting(runs, setting) if run["seed"] == TUNING_SEED}


def rates(scores: dict[float, float], alpha: int) -> list[float]:
    """Return the rates to try, given the scores of some: a best one that is neither first nor last, if it can be."""
    wanted = [move / alpha for move in MOVES]
    while set(wanted) <= set(scores) and len(wanted) < MOST_RATES:
        best = max(wanted, key=scores.__getitem__)
        if best == wanted[0]:
            wanted.insert(0, best / STEP)
        elif best == wanted[-1]:
            wanted.append(best * STEP)
        else:
            break
    return wanted


def of_setting(runs: Sequence[Outcome], setting: Setting) -> list[Outcome]:
    return [run for run in runs if (run["rank"], run["rule"]) == (setting.rank, setting.rule)]


def table(runs: Sequence[Outcome]) -> Result:
    """Compare every rank and rule at its best rate with what the model knew before, over the seeds that count."""
    rows, notes = [], []
    for setting in SETTINGS:
        found = [run for run in of_setting(runs, setting) if run["seed"] in SEEDS]
        if not found:
            continue
        case = f"rank {setting.rank}, {setting.rule}, alpha {setting.alpha}, rate {found[0]['rate']:.2g}"
        before = fmean(run["scores"][0] for run in found)
        rows.append(Row(case, "heldout_pass@1_end", fmean(run["end"] for run in found), before))
        notes.append(f"{case}: {in_words(found)}")
    notes.append("baseline: before training. ± is half of a 95 % interval over seeds.")
    return Result(tuple(rows), {"heldout_pass@1": 1.0}, tuple(notes))

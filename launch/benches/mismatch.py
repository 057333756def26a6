"""What `algorithm.mismatch` does to learning on the quickstart's sums, over seeds, learning rates and staleness.

One engine serves all runs of the small model. Seeds are the outermost loop, and every finished run is a line of
runs/bench/mismatch-runs.jsonl: the same command goes on where it was cut off. docs/mismatch.md says what was found.
"""

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from actors.evaluation.statistics import over_seeds
from launch.benches import small_model
from launch.benches.mismatch_runs import DEFAULT, UNCORRECTED, Cell, Size, configure, train
from launch.benches.table import FOLDER, Result, Row

RUNS = FOLDER / "mismatch-runs.jsonl"
MODEL = FOLDER / "small-model"

MODES = (DEFAULT, "token_tis", "icepop", "sequence_mask", UNCORRECTED)
RATES = (1.5e-3, 3e-3)
"""One at which the small model learns steadily by default, and twice that."""
STALENESS = (1, 4)
SEEDS = range(6)

LEAST = 1e-3
"""What a default that gets nothing right any more counts as, so that there is a ratio to it."""


def run() -> Result:
    if not MODEL.is_dir():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=FOLDER) as folder:
            small_model.make(Path(folder, "model"))
            Path(folder, "model").rename(MODEL)
    asyncio.run(study(cells(), Size(), str(MODEL), RUNS))
    return table(finished(RUNS))


def cells() -> Iterator[Cell]:
    for seed, staleness, rate, mode in product(SEEDS, STALENESS, RATES, MODES):
        yield Cell(mode, rate, staleness, seed)


async def study(wanted: Iterable[Cell], size: Size, model: str, file: Path) -> None:
    """Carry out the runs that the file does not have yet."""
    import torch
    from transformers import AutoTokenizer

    from actors.rollout.vllm_engine import RolloutEngine
    from actors.runtime.placement import Share
    from rewards.pool import VerifierPool
    from rewards.problems.loading import load
    from rewards.reward import reward_function

    done = {Cell(*(row[key] for key in Cell.__annotations__)) for row in finished(file)}
    missing = [cell for cell in wanted if cell not in done]
    if not missing:
        return
    config, cores = configure(model, size), tuple(sorted(os.sched_getaffinity(0)))
    torch.set_num_threads(len(cores))
    problems = load(config, AutoTokenizer.from_pretrained(model))
    engine = RolloutEngine(config, model, Share(cores=cores))
    verifier = VerifierPool(reward_function(config), 1)
    try:
        for number, cell in enumerate(missing, start=1):
            row = await train(cell, size, engine, verifier, problems, model, number)
            with file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(f"{cell}: held-out pass@1 {row['end']:.3f}, {row['seconds']:.0f} s", flush=True)
    finally:
        await verifier.close()
        await engine.close()


def finished(file: Path) -> list[dict[str, Any]]:
    """Return the rows of finished runs."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(runs: Sequence[dict[str, Any]]) -> Result:
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


def in_words(runs: Sequence[dict[str, Any]]) -> str:
    """Say how the runs of a cell ended."""
    end = over_seeds([run["end"] for run in runs])
    reach = "" if end.interval is None else f" ± {end.interval[1] - end.value:.3f}"
    collapsed = sum(run["collapsed"] for run in runs)
    return f"{end.value:.3f}{reach} in the end, {fmean(run['best'] for run in runs):.3f} at best; " + (
        f"{collapsed} of {len(runs)} runs collapsed."
    )


def of_cell(runs: Sequence[dict[str, Any]], mode: str, rate: float, staleness: int) -> list[dict[str, Any]]:
    """Return the runs of all seeds of a cell."""
    return [run for run in runs if (run["mode"], run["rate"], run["staleness"]) == (mode, rate, staleness)]

"""Made-up sweeps with exams, as launch/sweep.py leaves them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.parsing import FORMAT
from tests.run_folders import EVALUATION, sample, scores, write_run

N = 16

BASE = 0.3
"""Fraction of correct samples of each base model."""

AIME = {"aime24": 30, "aime25": 30, "amc23": 40}
"""Benchmarks of the paper, and their numbers of problems."""


def write_exam_sweep(
    folder: Path,
    models: Mapping[str, Mapping[int, float]],
    *,
    seeds: Sequence[int] = (0,),
    benchmarks: Mapping[str, int] = AIME,
    validated: bool = True,
    unfinished: Sequence[str] = (),
    apart: float = 0.02,
    **document: Any,
) -> Path:
    """A sweep whose runs gain so much by model and rank, and each seed `apart` more than the one before.

    The selection problems put the second rank first. unfinished: names of runs whose exam has not ended.
    """
    runs, bases = [], []
    for model, gains in models.items():
        short = model.rpartition("/")[2].rpartition(":")[2]
        write_exam(folder / f"base-{short}", model, {"base": BASE}, benchmarks)
        bases.append({"name": f"base-{short}", "overrides": {"model.path": model}, "exam": "completed"})
        for place, (rank, gain) in enumerate(gains.items()):
            for seed in seeds:
                name = f"{short}-r{rank}-seed{seed}"
                result = {"update": 30, "why": "it", "validation": 0.6 - 0.1 * abs(place - 1) if validated else None}
                write_run(folder / name, rank=rank, seed=seed, model=model, after=10 + place, result=result)
                _change_metrics(folder / name / "metrics.jsonl", rank, seed)
                levels = {"base": BASE, "adapter": BASE + gain + apart * seed}
                if name not in unfinished:
                    write_exam(folder / name, model, levels, benchmarks)
                overrides = {"model.path": model, "lora.rank": rank, "run.seed": seed}
                exam = "running" if name in unfinished else "completed"
                runs.append({"name": name, "overrides": overrides, "exam": exam})
    requested = [name if name in AIME else f"file:{name}.jsonl" for name in benchmarks]
    entries = {key: [{"status": "completed", **each} for each in of] for key, of in (("runs", runs), ("bases", bases))}
    known = {"format": FORMAT, "name": folder.name, "conf": "paper", "benchmarks": requested, "n": N, **entries}
    (folder / "sweep.json").write_text(json.dumps({**known, **document}))
    return folder


def write_exam(run: Path, model: str, levels: Mapping[str, float], benchmarks: Mapping[str, int]) -> None:
    """The evaluation of a run, or of a base model. levels: fractions of correct samples by policy, base or adapter."""
    (run / "evaluation" / "samples").mkdir(parents=True)
    results = []
    for name, problems in benchmarks.items():
        for policy, level in levels.items():
            rows = samples(problems, level)
            (run / "evaluation" / "samples" / f"{name}-{policy}.jsonl").write_text(
                "\n".join(map(json.dumps, rows)) + "\n"
            )
        known = {policy: scores(N, problems, {1: level}) for policy, level in levels.items()}
        results.append({"name": name, "problems": problems, "n": N, **known})
    protocol = {**EVALUATION["protocol"], "model": model, "settings": {"data.template": "{problem}"}}
    document = {"format": FORMAT, "status": "completed", "protocol": protocol, "benchmarks": results}
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(document))


def samples(problems: int, level: float) -> list[dict[str, Any]]:
    """Samples of which this fraction is correct, more of the first problems than of the last."""
    counts = [min(round(2 * level * N * (1 - place / (problems - 1))), N) for place in range(problems)]
    for place in range(problems):
        lack = round(level * problems * N) - sum(counts)
        counts[place] += max(min(lack, N - counts[place]), -counts[place])
    return [
        {**sample(place, number < count), "sample": number, "format": 1.0, "seconds": 0.1}
        for place, count in enumerate(counts)
        for number in range(N)
    ]


def _change_metrics(file: Path, rank: int, seed: int) -> None:
    """Let the entropy fall by a tenth per doubling of the rank, with 100 selection problems at every fifth update."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        fall = min(0.1 * rank.bit_length() + 0.01 * seed, 0.95) * row["update"] / len(rows)
        row |= {"policy/entropy": 2.0 * (1 - fall), "validation/problems": 100}
        if row["update"] % 5:
            del row["validation/pass@1"], row["validation/problems"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

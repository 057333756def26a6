"""Made-up sweeps with exams, as launch/sweep.py leaves them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.evaluation.statistics import comparison, scores
from actors.storage.documents import EvaluatedSample
from conf.parsing import FORMAT
from tests.run_folders import EVALUATION, sample, write_run

N = 16

AIME = {"aime24": 30, "aime25": 30, "amc23": 40}
"""Benchmarks of the paper, and their numbers of problems."""

Levels = Mapping[str, float]
"""Mean fraction of correct samples by policy, base or adapter."""


def write_exam_sweep(
    folder: Path,
    models: Mapping[str, Mapping[int, float]],
    *,
    seeds: Sequence[int] = (0,),
    benchmarks: Mapping[str, int] = AIME,
    validated: bool = True,
    unfinished: Sequence[str] = (),
    **document: Any,
) -> Path:
    """A sweep whose runs gain so much by model and rank. A base is right in 30 % of its samples; seeds differ by 2 %.

    The selection problems put the middle rank first. unfinished: names of runs whose exam has not ended.
    """
    entries, bases = [], []
    for model, gains in models.items():
        short = model.rpartition("/")[2].rpartition(":")[2]
        write_exam(folder / f"base-{short}", model, {"base": 0.3}, benchmarks)
        bases.append(
            {"name": f"base-{short}", "overrides": {"model.path": model}, "status": "completed", "exam": "completed"}
        )
        for place, (rank, gain) in enumerate(gains.items()):
            for seed in seeds:
                name = f"{short}-r{rank}-seed{seed}"
                result = {
                    "update": 30,
                    "why": "the best",
                    "validation": 0.6 - 0.1 * abs(place - 1) if validated else None,
                }
                write_run(folder / name, rank=rank, seed=seed, model=model, after=10 + place, result=result)
                _change_metrics(folder / name, rank, seed)
                exam = "running" if name in unfinished else "completed"
                if exam == "completed":
                    write_exam(folder / name, model, {"base": 0.3, "adapter": 0.3 + gain + 0.02 * seed}, benchmarks)
                overrides = {"model.path": model, "lora.rank": rank, "run.seed": seed}
                entries.append({"name": name, "overrides": overrides, "status": "completed", "exam": exam})
    known = {"format": FORMAT, "name": folder.name, "conf": "paper", "runs": entries, "bases": bases}
    known |= {
        "benchmarks": [name if name in AIME else f"file:{name}.jsonl" for name in benchmarks],
        "n": N,
        "pass_at": [1, 8, 16],
        **document,
    }
    (folder / "sweep.json").write_text(json.dumps(known))
    return folder


def write_exam(run: Path, model: str, levels: Levels, benchmarks: Mapping[str, int], **protocol: Any) -> None:
    """The evaluation of a run, or of a base model, in which problems are right from never to always."""
    (run / "evaluation" / "samples").mkdir(parents=True)
    results = []
    for name, problems in benchmarks.items():
        rows = {policy: samples(problems, level) for policy, level in levels.items()}
        for policy, of in rows.items():
            text = "".join(json.dumps(row.content) + "\n" for each in of for row in each)
            (run / "evaluation" / "samples" / f"{name}-{policy}.jsonl").write_text(text)
        result = {policy: scores(of).content for policy, of in rows.items()}
        if "adapter" in rows:
            result["paired"] = comparison(rows["base"], rows["adapter"]).content
        results.append({"name": name, "problems": problems, "n": N, **result})
    known = {
        **EVALUATION["protocol"],
        "model": model,
        "seed": 0,
        "settings": {"data.template": "{problem}"},
        **protocol,
    }
    document = {"format": FORMAT, "status": "completed", "protocol": known, "benchmarks": results}
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(document))


def samples(problems: int, level: float) -> list[list[EvaluatedSample]]:
    """Samples of problems of which so many are right: the first always, the last never."""
    right = round(level * problems * N)
    counts = [min(max(round(2 * level * N * (1 - place / (problems - 1))), 0), N) for place in range(problems)]
    for place in range(problems):
        counts[place] += max(min(right - sum(counts), N - counts[place]), -counts[place])
    more = {"format": 1.0, "seconds": 0.1}
    return [
        [
            EvaluatedSample.model_validate({**sample(place, number < count), "sample": number, **more})
            for number in range(N)
        ]
        for place, count in enumerate(counts)
    ]


def _change_metrics(run: Path, rank: int, seed: int) -> None:
    """Let the entropy fall by 10 % per doubling of the rank, and name the number of selection problems."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        fall = min(0.1 * rank.bit_length() + 0.01 * seed, 0.95) * row["update"] / len(rows)
        row |= {
            "policy/entropy": 2.0 * (1 - fall),
            "validation/problems": 100,
            "reward/mean": row["reward/mean"] * rank**0.05,
        }
        row |= {"response/mean_length": 500.0 + 10 * row["update"]}
        if row["update"] % 5:
            del row["validation/pass@1"], row["validation/problems"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

"""Made-up folders as runs and sweeps leave them, for what only reads them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from microbudget_rl.actors.evaluation.statistics import share_interval
from microbudget_rl.actors.storage.folders import mark
from microbudget_rl.conf.parsing import FORMAT
from microbudget_rl.launch.reporting.history import Sweep, read_sweep
from tests.json_lines import read_rows, write_rows

HOSTILE = (
    "</pre><script>alert(1)</script>\x00\x1b[31m\ud800 \u202egnorw `code` ``` | $x^2$ & &lt; **b** _i_ ~~s~~"
    " ![x](https://evil.example/x.png) [y](//evil.example) <https://evil.example> www.evil.example "
)
"""What a model may answer."""

PROBLEMS = 24

LEDGER = {
    "seconds": {
        "run": {"starting": 90.0, "training": 450.0, "finishing": 50.0},
        "rollouts": {"start": 90.0, "generate": 400.0, "wait_learner": 50.0, "evaluate": 50.0},
        "learner": {"start": 90.0, "update": 350.0, "wait_rollouts": 50.0, "adapter_check": 50.0, "evaluate": 50.0},
    },
    "counts": {"tokens/useful": 17000, "tokens/zero_variance": 9000, "tokens/eval": 900},
}


def write_run(
    folder: Path,
    *,
    rank: int = 8,
    seed: int = 0,
    learning_rate: float = 2e-4,
    model: str = "Qwen/Qwen2.5-1.5B-Instruct",
    before: int = 2,
    after: int | None = 18,
    warm: int | None = None,
    updates: int = 40,
    status: str = "completed",
    **summary: Any,
) -> Path:
    """A run whose base model solves the first `before` of 24 held-out problems, and its trained policy the first
    `after`; None for no final evaluation. warm: those that it solves after a warm start, None without one.
    """
    (folder / "samples").mkdir(parents=True)
    mark(folder, "run")
    config = {
        "format": FORMAT,
        "run": {"name": folder.name, "seed": seed},
        "model": {"path": model, "dtype": "bfloat16"},
        "data": {"source": "file:sums.jsonl"},
        "lora": {"rank": rank, "alpha": 32},
        "warm_start": {"source": "" if warm is None else "self"},
        "learner": {"learning_rate": learning_rate, "max_staleness": 1},
        "rollout": {"max_response_tokens": 24},
        "eval": {"n": 1, "temperature": 1.0, "top_p": 1.0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_rows(folder / "metrics.jsonl", (metrics(update, updates) for update in range(1, updates + 1)))
    evaluations = {"base": evaluation(before), "final": None if after is None else evaluation(after)}
    if warm is not None:
        evaluations["warm"] = evaluation(warm)
    for name, solved in (("base", before), ("warm", warm), ("final", after)):
        if solved is not None:
            write_samples(folder, name, solved)
    document = {
        "status": status,
        "reason": "it was time",
        "updates": updates,
        "budget_s": 600.0,
        "spent_s": 590.0,
        "eval": evaluations,
        "ledger": LEDGER,
        "versions": {"torch": "2.13.0"},
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(document))
    return folder


@contextmanager
def edited(file: Path) -> Iterator[Any]:
    """Let a test change the content of a JSON file."""
    yield (content := json.loads(file.read_text()))
    file.write_text(json.dumps(content))


def write_samples(folder: Path, name: str, solved: int) -> None:
    """The samples of an evaluation that solves the first problems."""
    rows = (sample(number, number < solved) for number in range(PROBLEMS))
    write_rows(folder / "samples" / f"eval-{name}.jsonl", rows)


def write_sweep(folder: Path, runs: dict[str, dict[str, Any]]) -> Path:
    """A sweep of such runs: the arguments of `write_run` by name. A run has begun unless its status is pending."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, arguments in runs.items():
        if (status := arguments.get("status", "completed")) != "pending":
            write_run(folder / name, **arguments)
        overrides = {OVERRIDES[word]: value for word, value in arguments.items() if word in OVERRIDES}
        entries.append({"name": name, "overrides": overrides, "status": status})
    document = {"format": FORMAT, "name": folder.name, "conf": "quickstart", "axes": {}, "runs": entries}
    (folder / "sweep.json").write_text(json.dumps(document))
    return folder


def swept(folder: Path, **runs: dict[str, Any]) -> Sweep:
    return read_sweep(write_sweep(folder / "sweep", runs))


def ranked(seeds: int, **after: int) -> dict[str, dict[str, Any]]:
    """Runs by rank, with so many solved of 24, one more and fewer by seed."""
    return {
        f"{rank}-{seed}": {"rank": int(rank[1:]), "seed": seed, "after": solved + seed % 3 - 1}
        for rank, solved in after.items()
        for seed in range(seeds)
    }


OVERRIDES = {"rank": "lora.rank", "seed": "run.seed", "learning_rate": "learner.learning_rate", "model": "model.path"}


def metrics(update: int, updates: int) -> dict[str, float]:
    share = update / updates
    return {
        "update": update,
        "version": update,
        "reward/mean": share + 0.1,
        "reward/accuracy": share,
        "response/mean_length": 8.0 + math.sin(update),
        "response/truncated": 0.01,
        "policy/entropy": 2.0 - share,
        "adapter_check/entropy": 1.5 - share,
        "adapter_check/decided": float(update > 1),
        "adapter_check/disagreement": 0.01,
        "policy/kl_to_base": share,
        "mismatch/abs_mean": 0.02,
        "groups/zero_variance": 0.2,
        "errors/unanimous": 0.1,
        "staleness/max": 1.0,
        "validation/pass@1": share,
        "validation/problems": PROBLEMS,
        "verify/correct": 100,
        "verify/wrong": 28,
        "verify/timeout": 0,
    }


def evaluation(solved: int) -> dict[str, Any]:
    marks = [float(number < solved) for number in range(PROBLEMS)]
    return {
        "pass@1": solved / PROBLEMS,
        "n": 1,
        "problems": PROBLEMS,
        "ci95": list(share_interval(marks)),
        "mean_length": 8.0,
        "truncated": 0.0,
    }


def sample(number: int, correct: bool) -> dict[str, Any]:
    return {
        "group": number,
        "problem": f"p{number}",
        "prompt": f"{number} + 1 =",
        "gold": str(number + 1),
        "version": None,
        "response": HOSTILE + str(number),
        "tokens": 8,
        "finish_reason": "stop",
        "reward": float(correct),
        "status": "correct" if correct else "wrong",
        "extracted": str(number),
    }


def scores(n: int, problems: int, by_k: dict[int, float]) -> dict[str, Any]:
    intervals = {f"pass@{k}": [max(value - 0.1, 0.0), min(value + 0.1, 1.0)] for k, value in by_k.items()}
    known = {"problems": problems, "ci95": intervals.pop("pass@1"), "intervals": intervals}
    return {f"pass@{k}": value for k, value in by_k.items()} | known | {"n": n, "mean_length": 90.0, "truncated": 0.0}


EVALUATION: dict[str, Any] = {
    "format": FORMAT,
    "protocol": {
        "model": "Qwen/Qwen2.5-1.5B-Instruct",
        "dtype": "bfloat16",
        "n": 16,
        "temperature": 0.6,
        "top_p": 0.95,
        "max_response_tokens": 3584,
    },
    "benchmarks": [
        {
            "name": "aime24",
            "source": "hub:aime24",
            "problems": 30,
            "filtered_counts": {"duplicate": 2},
            "base": scores(16, 30, {1: 0.02, 8: 0.1, 16: 0.16}),
            "adapter": scores(16, 30, {1: 0.04, 8: 0.12, 16: 0.18}),
            "paired": {"difference": 0.02, "ci95": [-0.01, 0.05], "p": 0.2},
        },
        {"name": "sums", "problems": 10, "n": 16, "base": scores(4, 10, {1: 0.5, 4: 0.9})},
    ],
}
"""evaluation.json of launch/evaluate.py."""

PLASTICITY = {
    "probe_entropy": {"before": 0.8, "after": 0.2, "change": -0.75},
    "kl_to_base": 0.3,
    "adapter_norm": {"q_proj": 0.9, "up_proj": 1.5},
    "effective_rank": {f"{layer}.{module}": 3.0 + layer for layer in range(4) for module in ("q_proj", "up_proj")},
    "rank": 8,
}
"""Of summary.json."""

N = 16

BASE = 0.3
"""Fraction of correct samples of each base model."""

AIME = {"aime24": 30, "aime25": 30, "amc23": 40}
"""Benchmarks of the paper, and their numbers of problems."""


def write_benchmarked(
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

    The validation problems put the second rank first. unfinished: names of runs whose evaluation has not ended.
    """
    runs, bases = [], []
    for model, gains in models.items():
        short = model.rpartition("/")[2].rpartition(":")[2]
        write_scores(folder / f"base-{short}", model, {"base": BASE}, benchmarks)
        bases.append({"name": f"base-{short}", "overrides": {"model.path": model}, "benchmarked": "completed"})
        for place, (rank, gain) in enumerate(gains.items()):
            for seed in seeds:
                name = f"{short}-r{rank}-seed{seed}"
                result = {"update": 30, "why": "it", "validation": 0.6 - 0.1 * abs(place - 1) if validated else None}
                write_run(folder / name, rank=rank, seed=seed, model=model, after=10 + place, result=result)
                _change_metrics(folder / name / "metrics.jsonl", rank, seed)
                levels = {"base": BASE, "adapter": BASE + gain + apart * seed}
                if name not in unfinished:
                    write_scores(folder / name, model, levels, benchmarks)
                overrides = {"model.path": model, "lora.rank": rank, "run.seed": seed}
                status = "running" if name in unfinished else "completed"
                runs.append({"name": name, "overrides": overrides, "benchmarked": status})
    requested = [name if name in AIME else f"file:{name}.jsonl" for name in benchmarks]
    entries = {key: [{"status": "completed", **each} for each in of] for key, of in (("runs", runs), ("bases", bases))}
    known = {"format": FORMAT, "name": folder.name, "conf": "paper", "benchmarks": requested, "n": N, **entries}
    (folder / "sweep.json").write_text(json.dumps({**known, **document}))
    return folder


def write_scores(run: Path, model: str, levels: Mapping[str, float], benchmarks: Mapping[str, int]) -> None:
    """The evaluation of a run, or of a base model. levels: fractions of correct samples by policy, base or adapter."""
    (run / "evaluation" / "samples").mkdir(parents=True)
    results = []
    for name, problems in benchmarks.items():
        for policy, level in levels.items():
            write_rows(run / "evaluation" / "samples" / f"eval-{policy}-{name}.jsonl", samples(problems, level))
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
    """Let the entropy fall by a tenth per doubling of the rank, with 100 validation problems at every fifth update."""
    rows = read_rows(file)
    for row in rows:
        fall = min(0.1 * rank.bit_length() + 0.01 * seed, 0.95) * row["update"] / len(rows)
        row |= {"policy/entropy": 2.0 * (1 - fall), "validation/problems": 100}
        if row["update"] % 5:
            del row["validation/pass@1"], row["validation/problems"]
    write_rows(file, rows)

"""Compares this project with TRL's GRPOTrainer on the quickstart's task (`learning`) and in updates of rank 256
(`updates`).

Learning: ten minutes of wall-clock time from the start of the process, over three seeds. Both sides get the same model,
problems, prompts, verifier, adapter, batch and learning rate, which falls with the time. Ours first rises to that rate
over the first six updates; TRL, which makes hardly more, has it from the first. Ours also evaluates the base model and
its last adapter within the time, TRL does not. The adapters of the fifth and tenth minute are evaluated afterwards, all
in the same way.

Updates: 8 problems × 8 samples × exactly 64 tokens. Both sides use a copy of the bundled model with an end token that
it never samples, and the fraction of vowels as the reward, so that nearly every group has an advantage. Ours is a real
run, adapter check and verification included.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from actors.evaluation.samples import EvaluationFolder
from actors.models.files import locate
from actors.storage.checkpoints import version_of
from actors.storage.run_record import RunRecord
from conf.load import load
from launch.hardware.machine import detect
from launch.plan.calibration import Pace
from launch.session.resume import resolve_dtype
from tests.benches.learner import matmul_limit
from tests.benches.results import Result, Row, carry_out, measured
from tests.conftest import ROOT

TRL = "trl==1.16.0"
FOLDER = ROOT / ".venv-bench"
"""Environment with TRL alone; torch, transformers and the rest come from the project's own."""

SEEDS, MINUTES = (0, 1, 2), (5, 10)
SAMPLES = 8
"""Samples of each held-out problem in an evaluation."""
CHECKPOINTS = {"checkpoint.every": 4, "checkpoint.keep_last": 60}
"""Our checkpoints, 8 GB. Updates between the last checkpoint and the minute's end do not count."""

NEVER_SAMPLED = "<empty_output>"
"""A special token of the bundled model that its training texts do not contain."""
GROUPS, TOKENS = 8, 64
WARM_UP, UPDATES = 2, 6
TRL_WARM_UP, TRL_UPDATES = 1, 2
TRL_BATCHES = (16, 64)
"""Samples per forward pass of TRL: the faster of the two is the baseline."""

Side = dict[int, dict[str, float]]
"""One side's progress by each minute: updates, and pass@1 on the held-out problems."""


def run() -> Result:
    notes = [f"{TRL}; start-up counts on both sides."]
    return Result((*learning(notes), *updates(notes)), matmul_limit(), tuple(notes))


def install() -> Path:
    """Return the interpreter of an environment with TRL in it."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "finished").exists():
        print(f"Installing {TRL} into {FOLDER} ...")
        venv.create(FOLDER, clear=True, with_pip=True)
        (site,) = FOLDER.glob("lib/python*/site-packages")
        (site / "project.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", TRL], check=True)
        (FOLDER / "finished").touch()
    return python


def train(**work: Any) -> dict[str, Any]:
    """Train with TRL in a process of its own. work: arguments of tests.benches.trl_trainer.train."""
    return measured("tests.benches.trl_trainer", json.dumps(work), python=install(), quiet=True)


def learning(notes: list[str]) -> Iterator[Row]:
    found: dict[str, list[Side]] = {"ours": [], "TRL": []}
    for seed in SEEDS:
        for name, side in (("TRL", theirs), ("ours", ours)):
            with TemporaryDirectory() as folder:
                found[name].append(reached := side(Path(folder), seed))
            print(f"{name}, seed {seed}: {json.dumps(reached)}", flush=True)
    for minute in MINUTES:
        for seed, here, there in zip(SEEDS, found["ours"], found["TRL"], strict=True):
            for metric in ("pass@1", "updates"):
                yield Row(f"seed {seed}, minute {minute}", metric, here[minute][metric], there[minute][metric])
        means = (f"{name} {fmean(side[minute]['pass@1'] for side in sides):.3f}" for name, sides in found.items())
        notes.append(f"Minute {minute}: mean pass@1 {', '.join(means)}.")


def ours(folder: Path, seed: int) -> Side:
    rows = carry_out(folder, {"run.seed": seed, "budget.minutes": MINUTES[-1], **CHECKPOINTS})
    reached = {}
    for minute in MINUTES:
        done = [row for row in rows if row["budget/spent_s"] <= 60 * minute]
        found = (folder / "run/checkpoints").glob("update-*")
        saved = max((each for each in found if version_of(each) <= len(done)), key=version_of, default=None)
        if saved is None:
            raise RuntimeError(f"no checkpoint by minute {minute}: this machine is too slow for this bench")
        adapter = folder / f"after-{minute}"
        shutil.copytree(saved / "adapter", adapter)  # evaluate.py takes a run's folder for all its adapters
        reached[minute] = {"updates": float(version_of(saved)), "pass@1": solved(folder, adapter)}
    return reached


def theirs(folder: Path, seed: int) -> Side:
    found = train(settings=[f"run.seed={seed}"], minutes=MINUTES, folder=str(folder), batch=TRL_BATCHES[-1])
    return {
        minute: {"updates": found["updates"][str(minute)], "pass@1": solved(folder, folder / f"after-{minute}")}
        for minute in MINUTES
    }


def solved(folder: Path, adapter: Path) -> float:
    """Return an adapter's pass@1 on the held-out problems of the quickstart."""
    name = f"of-{adapter.name}"
    given = ("conf=quickstart", f"run.name={name}", f"run.folder={folder}", f"adapter={adapter}")
    script = str(ROOT / "launch/evaluate.py")
    subprocess.run(
        [sys.executable, script, *given, "benchmarks=[heldout]", f"n={SAMPLES}"], check=True, stdout=sys.stderr
    )
    document = EvaluationFolder(RunRecord(folder / name).evaluation_folder).document()
    assert document
    return float(document["benchmarks"][0]["adapter"]["pass@1"]["value"])


def updates(notes: list[str]) -> Iterator[Row]:
    config = resolve_dtype(load(["conf=quickstart"]), detect("cpu"))
    with TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "device": "cpu",
            "model.path": endless_model(locate(config.model), folder / "model"),
            "model.dtype": config.model.dtype,
            "lora.rank": 256,
            "lora.alpha": 512,
            "data.source": "import:tests.benches.trl:problems",
            "data.size": "null",
            "data.problem_pattern": "",
            "data.template": "'{problem}'",
            "data.few_shot": "[]",
            "data.system": "null",
            "rollout.max_response_tokens": TOKENS,
            "learner.problems_per_update": GROUPS,
            "learner.tokens_per_microbatch": 2304,  # in two passes; TRL's 64 samples are one of 5,500 tokens
            "learner.schedule": "constant",
        }
        given = [f"{key}={value}" for key, value in settings.items()]
        sides = [train(settings=given, updates=TRL_WARM_UP + TRL_UPDATES, batch=batch) for batch in TRL_BATCHES]
        theirs = min(side["ends"][-1] - side["ends"][TRL_WARM_UP - 1] for side in sides) / TRL_UPDATES
        notes.append(f"TRL: {theirs:.1f} s per update, the best of {TRL_BATCHES} samples per forward pass.")
        for staleness in (1, 0):
            mine = our_updates(folder / f"{staleness}", settings | {"learner.max_staleness": staleness}, notes)
            yield Row(f"r=256, max_staleness={staleness}", "updates_per_minute", 60 / mine, 60 / theirs)


def our_updates(folder: Path, settings: dict[str, Any], notes: list[str]) -> float:
    """Return the mean seconds per update of a real run."""
    reward = "[{function: 'tests.benches.trl:reward', weight: 1.0}]"
    fixed = {"reward.custom": reward, "checkpoint.every": 1000, "budget.minutes": 60, "eval.problems": 0}
    rows = carry_out(folder, settings | fixed | {"budget.updates": WARM_UP + UPDATES})
    if any(row["response/mean_length"] != TOKENS for row in rows[WARM_UP:]):
        raise RuntimeError(f"some responses are not of {TOKENS} tokens")
    pace = Pace.between(rows, WARM_UP).update_s
    notes.append(f"Ours, {folder.name} versions stale at most: {pace:.1f} s per update.")
    print(notes[-1], flush=True)
    return pace


def endless_model(source: str, folder: Path) -> str:
    """Copy a model and change its end token, so that responses end only at the limit. Return the folder."""
    from transformers import AutoTokenizer

    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        settings["eos_token_id"] = tokenizer.convert_tokens_to_ids(NEVER_SAMPLED)
        (folder / name).write_text(json.dumps(settings))
    tokenizer.eos_token = NEVER_SAMPLED
    tokenizer.save_pretrained(folder)
    return str(folder)


def problems(**_: object) -> Iterator[dict[str, str]]:
    """Yield enough problems of one length for any run; the quickstart's parameters are ignored."""
    for first in range(10, 100):
        for second in range(10, 30):
            yield {"problem": f"What is {first} + {second}?", "answer": str(first + second)}


def reward(_: str, response: str, __: str) -> float:
    """Return the fraction of vowels, which differs between the responses of nearly any group."""
    return sum(letter in "aeiou" for letter in response.lower()) / max(len(response), 1)

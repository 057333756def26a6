"""Compares updates of rank 256 with those of TRL's GRPOTrainer: 8 problems × 8 samples × exactly 64 tokens.

TRL has its own defaults in bfloat16: the model's weights in bfloat16, the adapter's in float32, computed by autocast.
Ours keeps both in bfloat16, with float32 master weights in the optimizer. In float32 both sides compute everything so.
Both use a copy of the bundled model with an end token that it never samples, and the fraction of vowels as the reward,
so that nearly every group has an advantage. Ours is a real run, adapter check and verification included.
"""

import json
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from microbudget_rl.actors.models.files import locate
from microbudget_rl.conf.load import load
from microbudget_rl.launch.plan.measurements import pace_of
from tests.benches.learner import matmul_limit
from tests.benches.results import Result, Row, carry_out, measured
from tests.conftest import ROOT

TRL = "trl==1.16.0"
FOLDER = ROOT / ".venv-bench"
"""Environment with TRL alone; torch, transformers and the rest come from the project's own."""

NEVER_SAMPLED = "<empty_output>"
"""A special token of the bundled model that its training texts do not contain."""
GROUPS, TOKENS = 8, 64
WARM_UP = 1
"""First updates of both sides that are not measured."""
UPDATES, TRL_UPDATES = 5, 2
BATCHES = (16, 64)
"""Samples per forward pass of TRL: the faster of the two is the baseline."""
DTYPES = ("bfloat16", "float32")


def run() -> Result:
    notes: list[str] = []
    return Result(tuple(updates(notes)), matmul_limit(), tuple(notes))


def updates(notes: list[str]) -> Iterator[Row]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = endless_model(locate(load(["conf=quickstart"]).model), folder / "model")
        for dtype in DTYPES:
            settings = settings_of(model, dtype)
            theirs = min(seconds_of_trl(settings, batch, notes) for batch in BATCHES)
            mine = our_seconds(folder / dtype, settings)
            notes.append(f"Ours, {dtype}: {mine:.1f} s per update.")
            print(notes[-1], flush=True)
            yield Row(f"r=256, {dtype}", "updates_per_minute", 60 / mine, 60 / theirs)


def settings_of(model: str, dtype: str) -> dict[str, Any]:
    return {
        "device": "cpu",
        "model.path": model,
        "model.dtype": dtype,
        "lora.rank": 256,
        "lora.alpha": 512,
        "data.source": "import:tests.benches.trl_updates:problems",
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


def seconds_of_trl(settings: dict[str, Any], batch: int, notes: list[str]) -> float:
    """Return the mean seconds per update of TRL. batch: samples per forward pass."""
    ends = train(
        settings=[f"{key}={value}" for key, value in settings.items()], updates=WARM_UP + TRL_UPDATES, batch=batch
    )["ends"]
    found: float = (ends[-1] - ends[WARM_UP - 1]) / TRL_UPDATES
    notes.append(f"{TRL}, {settings['model.dtype']}, {batch} samples per forward pass: {found:.1f} s per update.")
    print(notes[-1], flush=True)
    return found


def our_seconds(folder: Path, settings: dict[str, Any]) -> float:
    """Return the mean seconds per update of a real run."""
    reward = "[{function: 'tests.benches.trl_updates:reward', weight: 1.0}]"
    fixed = {"reward.custom": reward, "checkpoint.every": 1000, "budget.minutes": 60, "eval.problems": 0}
    rows = carry_out(folder, settings | fixed | {"budget.updates": WARM_UP + UPDATES})
    if any(row["response/mean_length"] != TOKENS for row in rows[WARM_UP:]):
        raise RuntimeError(f"some responses are not of {TOKENS} tokens")
    return pace_of(rows, WARM_UP).update_s


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

"""Whole updates (sampling, rewards, learning, new weights in the sampler) against TRL's GRPOTrainer, on the same work.

8 problems × 8 samples × exactly 64 tokens: both sides use a copy of the embedded model whose end token is one it never
draws. The reward is the share of vowels, so that nearly every sample has an advantage. Ours is a real run, adapter
check and verification on, with `learner.max_staleness=1` (overlapped) and `=0` (in turns).
"""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from conf.load import load
from conf.models import locate
from conf.schema import Config
from conf.sizes import lora_parameters, matmul_parameters
from launch.benches import peers
from launch.benches.learner import matmul_limit
from launch.benches.processes import run_rows
from launch.benches.table import Result, Row
from launch.hardware.machine import detect
from launch.plan.forecast import Pace
from launch.session.resume import resolve_dtype

NEVER_DRAWN = "<empty_output>"
"""A special token of the embedded model that its training texts do not contain."""

GROUPS, SAMPLES, TOKENS = 8, 8, 64
WARM_UP, UPDATES, PEER_UPDATES = 2, 6, 2
PEER_BATCHES = (16, 64)
"""Samples a forward pass of the peer: the better of the two is the baseline."""

PARTS = {"learn": "the learner is busy", "sync": "swaps", "canary": "waits for the canary", "generate": "a group takes"}
"""Times in a run's metrics, in words."""


def run() -> Result:
    config = load(["conf=quickstart", "lora.rank=256", "lora.alpha=512"])
    resolve_dtype(config, detect("cpu"))
    with TemporaryDirectory() as folder:
        model = endless_model(locate(config.model), Path(folder) / "model")
        works = {batch: work_of(config, model, batch) for batch in PEER_BATCHES}
        peer = min(
            (tell(peers.TRL, peers.trl(work) | {"batch": batch}) for batch, work in works.items()),
            key=lambda found: found["update_s"],
        )
        ours = {eta: tell(f"ours, {eta}", run_ours(config, model, f"{folder}/{eta}", eta)) for eta in (1, 0)}
        needed = operations(config, works[PEER_BATCHES[0]])
    amounts = {"updates_per_minute": 60.0, "completion_tokens_per_second": float(GROUPS * SAMPLES * TOKENS)}
    limit = matmul_limit()
    floor = needed / limit[f"{config.model.dtype} matmul FLOP/s"]
    limit["seconds an update would take, were it all matmul at that rate"] = floor
    return Result(
        tuple(
            Row(f"max_staleness={eta}", metric, amount / found["update_s"], amount / peer["update_s"])
            for eta, found in ours.items()
            for metric, amount in amounts.items()
        ),
        limit,
        (
            f"{peers.TRL}, {config.model.dtype}, {peer['batch']:.0f} samples a forward pass (best of {PEER_BATCHES}): "
            f"{peer['update_s']:.1f} s an update, {peer['generate_s']:.1f} of them generation.",
            *(
                f"Ours, max_staleness={eta}: {found['update_s']:.1f} s an update; "
                + ", ".join(f"{words} {found[f'{part}_s']:.1f}" for part, words in PARTS.items())
                for eta, found in ours.items()
            ),
        ),
    )


def tell(who: str, found: dict[str, float]) -> dict[str, float]:
    """Print figures as soon as they are there: the whole bench takes half an hour on two cores."""
    print(f"{who}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()), flush=True)
    return found


def endless_model(source: str, folder: Path) -> str:
    """Copy a model so that its answers end only at the limit."""
    from transformers import AutoTokenizer

    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        settings["eos_token_id"] = tokenizer.convert_tokens_to_ids(NEVER_DRAWN)
        (folder / name).write_text(json.dumps(settings))
    tokenizer.eos_token = NEVER_DRAWN
    tokenizer.save_pretrained(folder)
    return str(folder)


def rows(**_: object) -> Iterator[dict[str, str]]:
    """Yield problems of one length, as many as any run takes; the quickstart's parameters do not matter."""
    for first in range(10, 100):
        for second in range(10, 30):
            yield {"problem": f"What is {first} + {second}?", "answer": str(first + second)}


def reward(_: str, response: str, __: str) -> float:
    return peers.reward(response)


def work_of(config: Config, model: str, batch: int) -> peers.Work:
    """Describe to the peer what our run does. batch: samples a forward pass."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = ([{"role": "user", "content": row["problem"]}] for row in islice(rows(), GROUPS))
    lora = config.lora
    return {
        "model": model,
        "dtype": config.model.dtype,
        "threads": len(os.sched_getaffinity(0)),
        "problems": [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats],
        "lora": {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.target_modules)},
        "settings": {
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": GROUPS * SAMPLES // batch,
            "num_generations": SAMPLES,
            "max_completion_length": TOKENS,
            "max_steps": peers.WARM_UP + PEER_UPDATES,
            "learning_rate": config.learner.learning_rate,
            "lr_scheduler_type": "constant",
            "temperature": 1.0,
            "beta": 0.0,
            "report_to": [],
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        },
    }


def run_ours(config: Config, model: str, folder: str, eta: int) -> dict[str, float]:
    """Return the mean seconds of an update and of its parts in a real run."""
    settings = {
        "device": "cpu",
        "model.path": model,
        "model.dtype": config.model.dtype,
        "lora.rank": config.lora.rank,
        "lora.alpha": config.lora.alpha,
        "data.source": "import:launch.benches.end_to_end:rows",
        "data.size": "null",
        "data.problem_pattern": "",
        "data.template": "'{problem}'",
        "data.examples": "[]",
        "data.system": "null",
        "reward.custom": "[{function: 'launch.benches.end_to_end:reward', weight: 1.0}]",
        "rollout.samples_per_problem": SAMPLES,
        "rollout.max_response_tokens": TOKENS,
        "learner.problems_per_update": GROUPS,
        "learner.max_staleness": eta,
        "learner.learning_rate": config.learner.learning_rate,
        "learner.schedule": "constant",
        "checkpoint.every": 1000,
        "budget.minutes": 60,
        "budget.updates": WARM_UP + UPDATES,
    }
    done = run_rows(folder, *(f"{key}={value}" for key, value in settings.items()))
    counted = done[WARM_UP:]
    if any(row["completion/mean_length"] != TOKENS for row in counted):
        raise RuntimeError(f"some answers are not of {TOKENS} tokens")
    parts = {f"{part}_s": sum(row[f"time/{part}"] for row in counted) / len(counted) for part in PARTS}
    return {"update_s": Pace.between(done, WARM_UP).update_s, **parts}


def operations(config: Config, work: peers.Work) -> float:
    """Return the FLOP of an update with each prompt computed once: 2 (N + L) a token to sample, 4 N + 6 L to learn.

    These are the adapter's products one by one, as the peer takes them; in float32 ours saves some while learning.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    frozen = matmul_parameters(config.model.shape)
    trained = lora_parameters(config.model.shape, config.lora.rank, config.lora.target_modules)
    tokens = sum(len(tokenizer(text).input_ids) for text in work["problems"]) + GROUPS * SAMPLES * TOKENS
    return tokens * (2 * (frozen + trained) + 4 * frozen + 6 * trained)

"""Whole updates (sampling, rewards, learning, new weights in the sampler) against TRL's GRPOTrainer, on the same work.

8 problems × 8 samples × exactly 64 tokens: both sides use a copy of the embedded model whose end token is one it never
draws. The reward is the share of vowels, so that nearly every sample has an advantage. Ours is a real run, canary and
verification on, with one update of staleness (overlapped) and with none (in turns).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from actors.storage.run_record import RunRecord
from conf.load import load
from conf.models import locate
from conf.schema import Config
from conf.sizes import lora_parameters, matmul_parameters
from launch.benches import peers
from launch.benches.learner import matmul_limit
from launch.benches.peers import Work
from launch.benches.report import Report, Row
from launch.plan.machine import detect
from launch.session.resume import resolve_dtype

NEVER_DRAWN = "<empty_output>"
"""A special token of the embedded model, without a place in its training texts."""

GROUPS, SAMPLES, TOKENS = 8, 8, 64
WARM_UP, UPDATES, PEER_UPDATES = 2, 6, 2
PEER_BATCHES = (16, 64)
"""Samples a forward pass of the peer: the better of the two is the baseline."""


def run() -> Report:
    config = load(["conf=quickstart", "lora.rank=256", "lora.alpha=512"])
    resolve_dtype(config, detect("cpu"))
    with TemporaryDirectory() as folder:
        model = endless_model(locate(config.model), Path(folder) / "model")
        given = work(config, model)
        needed = operations(config, given)
        peer = min(
            (told(peers.TRL, peers.trl(given, batch) | {"batch": batch}) for batch in PEER_BATCHES), key=update_s
        )
        ours = {eta: told(f"ours, {eta}", run_ours(config, model, Path(folder), eta)) for eta in (1, 0)}
    rows = []
    for eta, found in ours.items():
        for metric, amount in (
            ("updates_per_minute", 60.0),
            ("completion_tokens_per_second", GROUPS * SAMPLES * TOKENS),
        ):
            rows.append(Row(f"max_staleness={eta}", metric, amount / found["update_s"], amount / peer["update_s"]))
    limit = matmul_limit()
    floor = needed / limit[f"{config.model.dtype} matmul FLOP/s"]
    limit["seconds an update would take, were it all matmul at that rate"] = floor
    return Report(
        tuple(rows),
        limit,
        (
            f"{peers.TRL}, {config.model.dtype}, {peer['batch']:.0f} samples a forward pass (best of {PEER_BATCHES}): "
            f"{peer['update_s']:.1f} s an update, {peer['generate_s']:.1f} of them generation.",
            *(
                f"Ours, max_staleness={eta}: {found['update_s']:.1f} s an update; the learner is busy "
                f"{found['learn_s']:.1f}, swaps {found['sync_s']:.1f}, waits for the canary {found['canary_s']:.1f}; "
                f"a group takes {found['generate_s']:.1f}."
                for eta, found in ours.items()
            ),
        ),
    )


def told(who: str, found: dict[str, float]) -> dict[str, float]:
    """The same, once it is on the screen: the whole bench takes half an hour on two cores."""
    print(f"{who}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()), flush=True)
    return found


def update_s(found: dict[str, float]) -> float:
    return found["update_s"]


def endless_model(source: str, folder: Path) -> str:
    """A copy of a model whose answers end only at the limit."""
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
    """Problems of one length, as many as any run of this bench takes; the quickstart's parameters do not matter."""
    for first in range(10, 100):
        for second in range(10, 30):
            yield {"problem": f"What is {first} + {second}?", "answer": str(first + second)}


def reward(_: str, response: str, __: str) -> float:
    return peers.reward(response)


def work(config: Config, model: str) -> Work:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    problems = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["problem"]}], tokenize=False, add_generation_prompt=True
            )
        )
        for row in islice(rows(), GROUPS)
    ]
    return Work(
        model=model,
        dtype=config.model.dtype,
        problems=tuple(problems),
        samples=SAMPLES,
        tokens=TOKENS,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        modules=tuple(config.lora.target_modules),
        learning_rate=config.learner.learning_rate,
        threads=len(os.sched_getaffinity(0)),
        warm_up=1,
        updates=PEER_UPDATES,
    )


def run_ours(config: Config, model: str, folder: Path, eta: int) -> dict[str, float]:
    """Seconds of an update and of its parts, from the metrics of a real run."""
    name = f"staleness-{eta}"
    custom = "[{function: 'launch.benches.end_to_end:reward', weight: 1.0}]"
    command = [
        *(sys.executable, "launch/run.py", "conf=quickstart", f"run.name={name}", f"run.folder={folder}", "device=cpu"),
        *(f"model.path={model}", f"model.dtype={config.model.dtype}", f"lora.rank={config.lora.rank}"),
        *(f"lora.alpha={config.lora.alpha}", f"learner.learning_rate={config.learner.learning_rate}"),
        *("data.source=import:launch.benches.end_to_end:rows", "data.size=null"),
        *("data.problem_pattern=", "data.template='{problem}'", "data.examples=[]", "data.system=null"),
        *(f"reward.custom={custom}", f"rollout.samples_per_problem={SAMPLES}", f"rollout.max_response_tokens={TOKENS}"),
        *(
            f"learner.problems_per_update={GROUPS}",
            f"learner.max_staleness={eta}",
            "learner.schedule=constant",
        ),
        *("eval.problems=0", "checkpoint.every=1000", "budget.minutes=60", f"budget.updates={WARM_UP + UPDATES}"),
        "dashboard.port=0",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = RunRecord(folder / name).rows()
    counted = rows[WARM_UP:]
    if any(row["completion/mean_length"] != TOKENS for row in counted):
        raise RuntimeError(f"some answers are not of {TOKENS} tokens")

    def mean(key: str) -> float:
        return sum(row[key] for row in counted) / len(counted)

    return {
        "update_s": (counted[-1]["budget/spent_s"] - rows[WARM_UP - 1]["budget/spent_s"]) / UPDATES,
        "learn_s": mean("time/learn"),
        "sync_s": mean("time/sync"),
        "canary_s": mean("time/canary"),
        "generate_s": mean("time/generate"),
    }


def operations(config: Config, given: Work) -> float:
    """FLOP of an update with each prompt computed once: 2 (N + L) a token for sampling, 4 N + 6 L for learning.

    That is the adapter's products one by one, as the peer takes them; in float32 ours saves some while learning.
    """
    from transformers import AutoTokenizer

    frozen = matmul_parameters(config.model.shape)
    trained = lora_parameters(config.model.shape, given.rank, given.modules)
    prompts = sum(len(AutoTokenizer.from_pretrained(given.model)(text).input_ids) for text in given.problems)
    tokens = prompts + GROUPS * SAMPLES * TOKENS
    return tokens * (2 * (frozen + trained) + 4 * frozen + 6 * trained)

"""Sound inputs, each of which a case damages in its own way."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actors.storage.checkpoints import link
from actors.storage.files import seal
from tests.conftest import write_tiny_model
from tests.hostile.commands import call, shortcomings
from tests.run_folders import EVALUATION, PLASTICITY, evaluation, metrics, sample, write_run

RANK = 4
RUN = "run"
UPDATES = 4


@dataclass(frozen=True)
class Stock:
    """A folder with a tiny model, an adapter of it, rows of data and runs."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def data(self) -> Path:
        return self.folder / "sums.jsonl"

    @property
    def finished(self) -> Path:
        """A finished run, which is only read."""
        return self.folder / "finished"

    @property
    def unfinished(self) -> Path:
        """The folder of runs with one that can be resumed."""
        return self.folder / "unfinished"

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of a run on this stock."""
        return (
            "conf=base",
            f"model.path={self.model}",
            "model.dtype=float32",
            f"data.source=file:{self.data}",
            "device=cpu",
            f"lora.rank={RANK}",
            "lora.alpha=8",
            "eval.problems=4",
            "reward.workers=1",
            "learner.problems_per_update=4",
            "dashboard.port=0",
        )


def write_stock(folder: Path) -> Stock:
    stock = Stock(folder)
    write_tiny_model(stock.model)
    rows = [{"problem": f"What is {number} + 5?", "answer": str(number + 5)} for number in range(16)]
    stock.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_adapter(stock)
    write_run(stock.finished, model=str(stock.model), plasticity=PLASTICITY, updates=UPDATES)
    document = {**EVALUATION, "protocol": {**EVALUATION["protocol"], "model": str(stock.model)}}
    write_evaluation(stock.finished, document)
    write_unfinished(stock)
    return stock


def write_adapter(stock: Stock) -> None:
    """Write a plain PEFT adapter whose every matrix is filled."""
    import torch
    from safetensors.torch import save_file

    from conf.adapters import _shapes
    from conf.models import shape_from_config
    from conf.schema import Config

    stock.adapter.mkdir()
    config = Config()
    config.lora.rank = RANK
    shapes = _shapes(config, shape_from_config(stock.model))
    save_file({name: torch.full(shape, 0.01) for name, shape in shapes.items()}, stock.adapter / WEIGHTS)
    (stock.adapter / SETTINGS).write_text(json.dumps({**ADAPTER, "base_model_name_or_path": str(stock.model)}))


def write_evaluation(run: Path, document: dict[str, Any]) -> None:
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(document))


def write_unfinished(stock: Stock) -> None:
    """Begin a run, and write what its processes would have left after a few updates."""
    ending = call("run", *stock.settings, f"run.folder={stock.unfinished}", f"run.name={RUN}")
    assert not shortcomings(ending, refused=False), (shortcomings(ending, refused=False), ending.out)
    assert ending.started, ending
    run = stock.unfinished / RUN
    (run / "samples").mkdir(exist_ok=True)
    rows = [{**metrics(update, UPDATES), "budget/spent_s": 60.0 * update} for update in range(1, UPDATES + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = {**evaluation(2), "round_seconds": 3.0}
    seconds = {"run": {"start": 9.0}, "learner": {"update": 20.0}}
    documents: dict[str, Any] = {
        "spent.json": {"spent_s": 300.0},
        "ledger.json": {"seconds": seconds, "counts": {"tokens/useful": 900}},
        "incarnation.json": 1,
        "eval-base.json": base,
        "probe.json": [[5, 6, 7], [8, 9]],
    }
    for name, document in documents.items():
        (run / name).write_text(json.dumps(document))
    (run / "events.jsonl").write_text(json.dumps({"update": 2, "event": "rollout-0 died", "detail": "killed"}) + "\n")
    for name in ("eval-base", "update-000002"):
        text = "".join(json.dumps(sample(number, number < 2)) + "\n" for number in range(8))
        (run / "samples" / f"{name}.jsonl").write_text(text)
    checkpoint = run / "checkpoints" / f"update-{UPDATES:06d}"
    shutil.copytree(stock.adapter, checkpoint / "adapter")
    (checkpoint / "coordinator.json").write_text(json.dumps({"version": UPDATES, "validation": None}))
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    facts = {"version": UPDATES, "steps": UPDATES, "model": recorded["model"]["path"], "dtype": "float32"}
    (checkpoint / "learner.json").write_text(json.dumps(facts))
    (checkpoint / "learner.safetensors").write_bytes((stock.adapter / WEIGHTS).read_bytes())
    seal(checkpoint)
    link(run / "checkpoints" / "latest", checkpoint)


WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
ADAPTER: dict[str, Any] = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": 8,
    "use_rslora": False,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "bias": "none",
    "init_lora_weights": True,
}

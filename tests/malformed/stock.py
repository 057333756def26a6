"""Sound inputs, each of which a case damages in its own way."""

import json
import shutil
from pathlib import Path

import yaml

from actors.storage.checkpoints import link
from actors.storage.files import seal
from conf.load import dump, load
from conf.parsing import FORMAT
from launch.hardware.machine import detect
from launch.plan.calibration import keep
from launch.plan.time import Calibration, Workload
from tests.conftest import write_tiny_model
from tests.run_folders import EVALUATION, PLASTICITY, evaluation, metrics, sample, write_run
from tests.trained_runs import write_trained

RUN = "run"
UPDATES = 4


class Stock:
    """A folder with a tiny model, rows of data and runs.

    finished: a run for reports. trained: a run whose policy, an adapter, can be used. unfinished: holds a run that can
    be resumed.
    """

    def __init__(self, folder: Path) -> None:
        self.model = folder / "model"
        self.data = folder / "sums.jsonl"
        self.finished = folder / "finished"
        self.trained = folder / "runs" / "trained"
        self.adapter = self.trained / "checkpoints" / "update-000004" / "adapter"
        self.unfinished = folder / "unfinished"

    def without(self, *keys: str) -> list[str]:
        """Return settings of a run on this stock, but for these."""
        settings = {
            "conf": "base",
            "model.path": str(self.model),
            "model.dtype": "float32",
            "data.source": f"file:{self.data}",
            "device": "cpu",
            "lora.rank": "4",
            "lora.alpha": "8",
            "eval.problems": "4",
            "reward.workers": "1",
            "learner.problems_per_update": "4",
            "dashboard.port": "0",
        }
        return [f"{key}={value}" for key, value in settings.items() if key not in keys]


def write_stock(folder: Path) -> Stock:
    stock = Stock(folder)
    write_tiny_model(stock.model)
    rows = [{"problem": f"What is {number} + 5?", "answer": str(number + 5)} for number in range(16)]
    stock.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_run(stock.finished, model=str(stock.model), plasticity=PLASTICITY, updates=UPDATES)
    document = {**EVALUATION, "protocol": {**EVALUATION["protocol"], "model": str(stock.model)}}
    (stock.finished / "evaluation").mkdir()
    (stock.finished / "evaluation" / "evaluation.json").write_text(json.dumps(document))
    write_trained(stock.trained, stock.model)
    for name in ("metrics.jsonl", "summary.json"):
        shutil.copyfile(stock.finished / name, stock.trained / name)
    write_unfinished(stock)
    return stock


def write_unfinished(stock: Stock) -> None:
    """Write what the processes of a run have left after a few updates."""
    run = stock.unfinished / RUN
    (run / "samples").mkdir(parents=True)
    config = load([*stock.without(), f"run.folder={stock.unfinished}", f"run.name={RUN}"])
    (run / "config.yaml").write_text(dump(config))
    found = Calibration(start_s=40.0, workload=Workload(30.0, 9.0, 8.0, 0.2, 0.4), together=1.0, of="14 updates")
    keep(found, config, detect("cpu"))
    rows = [{**metrics(update, UPDATES), "budget/spent_s": 60.0 * update} for update in range(1, UPDATES + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seconds = {"run": {"start": 9.0}, "learner": {"update": 20.0}}
    documents = {
        "spent.json": {"spent_s": 300.0},
        "ledger.json": {"seconds": seconds, "counts": {"tokens/useful": 900}},
        "incarnation.json": 1,
        "eval-base.json": {**evaluation(2), "round_seconds": 3.0},
        "reference_set.json": [[5, 6, 7], [8, 9]],
        "events.jsonl": {"update": 2, "event": "rollout-0 died", "detail": "killed"},
    }
    for name, document in documents.items():
        (run / name).write_text(json.dumps(document) + "\n")
    for name in ("eval-base", "update-000002"):
        text = "".join(json.dumps(sample(number, number < 2)) + "\n" for number in range(8))
        (run / "samples" / f"{name}.jsonl").write_text(text)
    checkpoint = run / "checkpoints" / f"update-{UPDATES:06d}"
    shutil.copytree(stock.adapter, checkpoint / "adapter")
    (checkpoint / "coordinator.json").write_text(json.dumps({"version": UPDATES}))
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    facts = {
        "format": FORMAT,
        "version": UPDATES,
        "steps": UPDATES,
        "model": recorded["model"]["path"],
        "dtype": "float32",
    }
    (checkpoint / "learner.json").write_text(json.dumps(facts))
    (checkpoint / "learner.safetensors").write_bytes((stock.adapter / "adapter_model.safetensors").read_bytes())
    seal(checkpoint)
    link(run / "checkpoints" / "latest", checkpoint)

"""Describes a trained model for whom it is given to: a model card, and the run's report, settings and metrics."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from microbudget_rl.actors.formats import money
from microbudget_rl.actors.models.files import BUNDLED, name_on_hub
from microbudget_rl.actors.models.prompts import reminder
from microbudget_rl.actors.models.sizes import padded_rank
from microbudget_rl.actors.results import Results, read_run
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.conf.load import RECORD, public_settings, unmoved, with_texts
from microbudget_rl.conf.schema import among, marked
from microbudget_rl.launch.reporting.page import run_report
from microbudget_rl.launch.trained.policy import Trained

PATH = re.compile(r"(/[^/\s{}]+){2,}")
"""Pattern of an absolute path, perhaps of another machine. A prompt may also begin with a slash."""


def write_card(trained: Trained, adapter: bool, folder: Path, name: str) -> None:
    """Write README.md and training/ of a finished run into a folder. adapter: whether it holds the adapter alone.
    name: what stands for the folder in the card's instructions.
    """
    run = read_run(trained.run.path)
    origin = run.origin.model_copy(update={"command": ""})
    run = replace(run, name=name, config=public(run.config), origin=origin)
    settings = yaml.safe_dump(public(public_settings(trained.config)), sort_keys=False, allow_unicode=True)
    report = run_report(run, settings)
    model_card(trained, run, report.markdown, adapter).save(folder / "README.md")
    (training := folder / "training").mkdir()
    (training / trained.run.report.name).write_text(report.html, encoding="utf-8")
    (training / RECORD).write_text(settings, encoding="utf-8")
    if trained.run.metrics.exists():
        shutil.copyfile(trained.run.metrics, training / trained.run.metrics.name)


def model_card(trained: Trained, run: Results, report: str, adapter: bool) -> ModelCard:
    """Return a card with the hub's metadata, the run's report in Markdown, instructions, and limits."""
    version, base = version_of(trained.checkpoint), trained.base_name
    on_hub, price = "/" in base, trained.config.budget.price_per_hour
    metadata = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation=("adapter" if adapter else "finetune") if on_hub else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "rlvr", "grpo", "lora", "reasoning", "microbudget-rl"],
    )
    return ModelCard.from_template(
        metadata,
        template_path=str(Path(__file__).parent / "templates" / "card.md"),
        name=run.name,
        base=base if on_hub else "FOLDER_OF_THE_BASE_MODEL",
        revision=name_on_hub(trained.config.model)[1],
        adapter=adapter,
        rank=padded_rank(trained.config.lora.rank),
        report=report,
        cost="" if (cost := run.summary.cost) is None else f"{money(cost)} at {price:g} per hour",
        version=version,
        described=run.summary.result.update if run.summary.result else version,
        repacked=trained.config.model.path == BUNDLED,
        reminder="".join(reminder(trained.config)),
    )


def public(settings: dict[str, Any]) -> Any:
    """Return settings, nested or by dotted key, with paths on this machine replaced by the names of the files."""

    def name_alone(text: str, key: str) -> str:
        local = among(key, marked("local_path")) and (text.startswith(("/", ".", "~")) or os.path.exists(text))
        here = local or PATH.fullmatch(text) or (text.startswith("/") and os.path.exists(text))
        return Path(text).name if here else text

    return with_texts(unmoved(settings), name_alone)

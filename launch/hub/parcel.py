"""The folder that goes to the hub: the model, its card, and what shows how it was trained."""

import shutil
from pathlib import Path

import yaml

from conf.load import RECORD, dump
from conf.schema import Config
from launch.hub.card import model_card
from launch.reports.history import Run
from launch.reports.page import run_report
from launch.trained.policy import Trained

CARD = "README.md"

TRAINING = "training"
"""Folder of report, settings and metrics."""

OWN = ("run.folder", "run.on_end", "run.restore", "checkpoint.mirror", "dashboard")
"""Settings that are the business of the machine or its owner, which nobody else gets to see."""


def add_evidence(folder: Path, trained: Trained, run: Run, form: str, repository: str, licence: str) -> None:
    """Write the model card, and beside the model what shows how it was trained."""
    (folder / CARD).write_text(model_card(trained, run, form, repository, licence), encoding="utf-8")
    (folder / TRAINING).mkdir()
    settings = public_settings(trained.config)
    report = run_report(run, settings).html
    (folder / TRAINING / trained.run.report.name).write_text(report, encoding="utf-8")
    (folder / TRAINING / RECORD).write_text(settings, encoding="utf-8")
    if trained.run.metrics.exists():
        shutil.copyfile(trained.run.metrics, folder / TRAINING / trained.run.metrics.name)


def public_settings(config: Config) -> str:
    """Return the run's settings as YAML, without what is its owner's business."""
    nested = yaml.safe_load(dump(config))
    for path in OWN:
        section, _, key = path.partition(".")
        if key:
            nested[section].pop(key, None)
        else:
            nested.pop(section, None)
    return yaml.safe_dump(nested, sort_keys=False, allow_unicode=True)


def listing(folder: Path) -> list[tuple[str, int]]:
    """Return path and bytes of every file in a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [(str(file.relative_to(folder)), file.stat().st_size) for file in files]

"""The folder that goes to the hub: the model, its card, and what shows how it was trained."""

import shutil
from pathlib import Path

import yaml

from conf.load import RECORD, public_settings
from launch.hub.card import model_card
from launch.reports.history import Run
from launch.reports.page import run_report
from launch.trained.policy import Trained

CARD = "README.md"

TRAINING = "training"
"""Folder of report, settings and metrics."""


def add_evidence(folder: Path, trained: Trained, run: Run, form: str, repository: str, licence: str) -> None:
    """Write the model card, and beside the model what shows how it was trained."""
    (folder / CARD).write_text(model_card(trained, run, form, repository, licence), encoding="utf-8")
    (folder / TRAINING).mkdir()
    settings = yaml.safe_dump(public_settings(trained.config), sort_keys=False, allow_unicode=True)
    report = run_report(run, settings).html
    (folder / TRAINING / trained.run.report.name).write_text(report, encoding="utf-8")
    (folder / TRAINING / RECORD).write_text(settings, encoding="utf-8")
    if trained.run.metrics.exists():
        shutil.copyfile(trained.run.metrics, folder / TRAINING / trained.run.metrics.name)


def listing(folder: Path) -> list[tuple[str, int]]:
    """Return path and bytes of every file in a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [(str(file.relative_to(folder)), file.stat().st_size) for file in files]

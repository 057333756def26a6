"""Publish what a finished run has trained on the Hugging Face Hub.

    python launch/push.py RUN_FOLDER to=OWNER/NAME [format=adapter|merged] [private=true|false] [overwrite=true]
        [dry_run=true]

Examples:

    python launch/push.py runs/quickstart to=me/adder dry_run=true
    python launch/push.py runs/quickstart to=me/adder
    python launch/push.py runs/quickstart to=me/adder-merged format=merged private=false

One commit brings the adapter, or the verified merged model, a model card made of the run's report, the report itself,
the settings and the metrics. The repository is private unless private=false. The token is read from HF_TOKEN in the
environment alone. dry_run=true prints the files and the card, and needs no token and no network.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from conf.arguments import run_and_options
from conf.command import PlainConsole, command
from conf.errors import BadInput
from conf.load import RECORD, public_settings
from launch.after.trained import Trained, carry_out, find_trained
from launch.reporting.history import Run, read_run

YES_NO = ("true", "false")
OPTIONS = {"to": (), "format": ("adapter", "merged"), "private": YES_NO, "overwrite": YES_NO, "dry_run": YES_NO}


@command("push.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 published, 1 not what was trained, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)
    if "to" not in given:
        raise BadInput("say where to publish it: to=OWNER/NAME")
    return carry_out(lambda: push(folder, given, PlainConsole()))


def push(folder: Path, given: dict[str, str], console: Console) -> int:
    """Write all files into a temporary folder, then upload or print them. Return the exit code."""
    from launch.after.card import BUNDLED_LICENCE, base_name, model_card, on_hub
    from launch.after.repository import Repository, check_name

    name, form = given["to"], given.get("format", "adapter")
    check_name(name)
    trained = find_trained(folder)
    if trained.run.finished() is None:
        raise BadInput(f"the run in {folder} has not finished: its model card needs the end, so resume it first")
    repository = None if given.get("dry_run") == "true" else Repository(name)
    base, licence = base_name(trained), BUNDLED_LICENCE.get(trained.config.model.path, "")
    if repository:
        repository.check(overwrite=given.get("overwrite") == "true")
        licence = licence or (repository.licence_of(base) if on_hub(base) else "")
    with tempfile.TemporaryDirectory(prefix="microbudget-push-") as scratch:
        files, run = Path(scratch), read_run(folder)
        run = replace(run, config=public(run.config), origin={**run.origin, "command": ""})
        if fault := write_model(trained, form, files, console):
            console.print(f"Not published: {fault}", soft_wrap=True)
            return 1
        card = model_card(trained, run, form, name, licence)
        card.save(files / "README.md")
        write_training(files / "training", trained, run)
        for file in sorted(file for file in files.rglob("*") if file.is_file()):
            console.print(f"{file.stat().st_size:13,} bytes  {file.relative_to(files)}")
        if repository is None:
            console.print(f"{card}\nNothing was uploaded: without dry_run=true all goes to {name}", soft_wrap=True)
            return 0
        message = f"{trained.run.path.resolve().name}, {trained.checkpoint.name}, as {form}"
        address = repository.fill(files, message, private=given.get("private") != "false")
    console.print(f"Published: {address}", soft_wrap=True)
    return 0


def write_model(trained: Trained, form: str, folder: Path, console: Console) -> str:
    """Write the model into an empty folder. Return why it is not what was trained; empty if it is.

    An adapter is copied from its sealed checkpoint; a merged model is new, and so is verified.
    """
    from launch.after.artifact import write_adapter, write_verified
    from launch.after.card import base_name

    if form == "adapter":
        write_adapter(trained, folder, base_name(trained))
        return ""
    return write_verified(trained, form, "", "", folder, console)


def write_training(folder: Path, trained: Trained, run: Run) -> None:
    """Write report, settings and metrics into a new folder."""
    from launch.reporting.page import run_report

    folder.mkdir()
    settings = yaml.safe_dump(public(public_settings(trained.config)), sort_keys=False, allow_unicode=True)
    (folder / trained.run.report.name).write_text(run_report(run, settings).html, encoding="utf-8")
    (folder / RECORD).write_text(settings, encoding="utf-8")
    if trained.run.metrics.exists():
        shutil.copyfile(trained.run.metrics, folder / trained.run.metrics.name)


def public(value: Any) -> Any:
    """Return a setting, or nested ones, with the mere names of files on this machine instead of their paths."""
    if isinstance(value, dict):
        return {key: public(each) for key, each in value.items()}
    if isinstance(value, list):
        return [public(each) for each in value]
    if isinstance(value, str) and value.startswith("file:"):
        return f"file:{Path(value.removeprefix('file:')).name}"
    if isinstance(value, str) and value.startswith("/") and os.path.exists(value):
        return Path(value).name
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

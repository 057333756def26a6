"""Publish what a finished run has trained on the Hugging Face Hub.

    python launch/push.py RUN_FOLDER to=OWNER/NAME [format=adapter|merged] [private=true|false] [overwrite=true]
        [dry_run=true]

Examples:

    python launch/push.py runs/quickstart to=me/adder dry_run=true
    python launch/push.py runs/quickstart to=me/adder
    python launch/push.py runs/quickstart to=me/adder-merged format=merged private=false

The repository gets the adapter, or the verified merged model, with a model card made of the run's report, the report
itself, the settings and the metrics, in one commit. It is private unless private=false. The token is read from HF_TOKEN
in the environment alone. dry_run=true prints the files and the card, and needs no token and no network.
"""

import shlex
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
from conf.schema import marked
from launch.after.trained import Trained, carry_out, find_trained
from launch.reporting.history import Run, read_run

YES_NO = ("true", "false")

OPTIONS = {
    "to": (),
    "format": ("adapter", "merged"),
    "private": YES_NO,
    "overwrite": YES_NO,
    "dry_run": YES_NO,
}

TRAINING = "training"
"""Folder of report, settings and metrics in the repository."""


@command("push.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 published, 1 not what was trained, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)
    if "to" not in given:
        raise BadInput("say where to publish it: to=OWNER/NAME")
    return carry_out(lambda: push(folder, given, PlainConsole()))


def push(folder: Path, given: dict[str, str], console: Console) -> int:
    """Make the model and what goes with it in a folder of its own, and send or show that. Return the exit code."""
    from launch.after.card import base_name, local_licence, model_card, on_hub
    from launch.after.repository import Repository, check_name

    name, form = given["to"], given.get("format", "adapter")
    check_name(name)
    trained = find_trained(folder)
    if trained.run.finished() is None:
        raise BadInput(f"the run in {folder} has not finished: let it end, which the model card is made of")
    repository = None if given.get("dry_run") == "true" else Repository(name)
    licence, base = local_licence(trained), base_name(trained)
    if repository:
        repository.check(overwrite=given.get("overwrite") == "true")
        licence = licence or (repository.licence_of(base) if on_hub(base) else "")
    with tempfile.TemporaryDirectory(prefix="microbudget-push-") as scratch:
        parcel, run = Path(scratch), public_run(read_run(folder))
        if fault := write_model(trained, form, parcel, console):
            console.print(f"Not published: {fault}", soft_wrap=True)
            return 1
        card = model_card(trained, run, form, name, licence)
        card.save(parcel / "README.md")
        add_evidence(parcel / TRAINING, trained, run)
        for file in sorted(file for file in parcel.rglob("*") if file.is_file()):
            console.print(f"{file.stat().st_size:13,} bytes  {file.relative_to(parcel)}")
        if repository is None:
            console.print(str(card), soft_wrap=True)
            console.print(f"Nothing was sent: without dry_run=true these files would go to {name}", soft_wrap=True)
            return 0
        message = f"{trained.run.path.resolve().name}, {trained.checkpoint.name}, as {form}"
        console.print(f"Sending them to {name} …", soft_wrap=True)
        address = repository.fill(parcel, message, private=given.get("private") != "false")
    console.print(f"Published: {address}", soft_wrap=True)
    return 0


def write_model(trained: Trained, form: str, folder: Path, console: Console) -> str:
    """Write the model into an empty folder. Return why it is not what was trained; empty if it is.

    An adapter is copied as the run has sealed it; a merged model is new, and so is verified.
    """
    from launch.after.artifact import check_room, write_adapter, write_verified
    from launch.after.card import base_name

    check_room(folder, trained, form, "", "set TMPDIR to a folder elsewhere")
    if form == "adapter":
        write_adapter(trained, folder, base_name(trained))
        return ""
    return write_verified(trained, form, "", "", folder, console).fault


def add_evidence(folder: Path, trained: Trained, run: Run) -> None:
    """Write into a new folder what shows how the model was trained: report, settings and metrics."""
    from launch.reporting.page import run_report

    folder.mkdir()
    settings = yaml.safe_dump(public(public_settings(trained.config)), sort_keys=False, allow_unicode=True)
    (folder / trained.run.report.name).write_text(run_report(run, settings).html, encoding="utf-8")
    (folder / RECORD).write_text(settings, encoding="utf-8")
    if trained.run.metrics.exists():
        shutil.copyfile(trained.run.metrics, folder / trained.run.metrics.name)


def public_run(run: Run) -> Run:
    """Return a run whose settings and command name files and folders of this machine without where they are."""
    try:
        words = [word.partition("=") for word in shlex.split(run.origin.command)]
    except ValueError:  # its quotes are those for reading
        words = []
    line = shlex.join(f"{key}{equals}{public(value, key)}" for key, equals, value in words)
    origin = run.origin.model_copy(update={"command": line})
    return replace(run, config={key: public(value, key) for key, value in run.config.items()}, origin=origin)


def public(value: Any, key: str = "") -> Any:
    """Return the value of a setting, or nested ones, with the mere names of files and folders of this machine."""
    if isinstance(value, dict):
        return {name: public(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()}
    if isinstance(value, str) and value.startswith("file:"):
        return f"file:{Path(value.removeprefix('file:')).name}"
    if isinstance(value, str) and key in marked("local_path") and (Path(value).is_absolute() or Path(value).exists()):
        return Path(value).name
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

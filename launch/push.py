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

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actors.runtime.process import handle_signals, raise_exit
from conf.arguments import run_and_options
from conf.command import PlainConsole, command
from conf.errors import BadInput
from launch.trained.policy import Trained, find_trained

YES_NO = ("true", "false")

OPTIONS = {
    "to": (),
    "format": ("adapter", "merged"),
    "private": YES_NO,
    "overwrite": YES_NO,
    "dry_run": YES_NO,
}


@command("push.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 published, 1 not what was trained, 2 bad input, 130 or 143 interrupted."""
    handle_signals(raise_exit)
    os.environ["TQDM_DISABLE"] = "1"  # no library's progress bars
    try:
        folder, given = run_and_options(arguments, OPTIONS)
        if "to" not in given:
            raise BadInput("say where to publish it: to=OWNER/NAME")
        return push(folder, given, PlainConsole())
    except SystemExit as told:
        return 128 + int(told.code or 0)


def push(folder: Path, given: dict[str, str], console: Console) -> int:
    """Make the parcel beside nothing else and send it, or show it. Return the exit code."""
    from launch.hub.card import base_name, local_licence, on_hub
    from launch.hub.parcel import add_evidence, listing
    from launch.hub.repository import Repository, check_name
    from launch.reports.history import read_run

    name, form, dry = given["to"], given.get("format", "adapter"), given.get("dry_run") == "true"
    check_name(name)
    trained = find_trained(folder)
    if trained.run.finished() is None:
        raise BadInput(f"the run in {folder} has not finished: let it end, which the model card is made of")
    repository = None if dry else Repository(name)
    licence, base = local_licence(trained), base_name(trained)
    if repository:
        repository.check(overwrite=given.get("overwrite") == "true")
        licence = licence or (repository.licence_of(base) if on_hub(base) else "")
    with tempfile.TemporaryDirectory(prefix="microbudget-push-") as scratch:
        parcel = Path(scratch)
        if fault := write_model(trained, form, parcel, console):
            console.print(f"Not published: {fault}", soft_wrap=True)
            return 1
        add_evidence(parcel, trained, read_run(folder), form, name, licence)
        console.print(table(listing(parcel)))
        if repository is None:
            console.print((parcel / "README.md").read_text("utf-8"), soft_wrap=True)
            console.print(f"Nothing was sent: without dry_run=true these files would go to {name}", soft_wrap=True)
            return 0
        message = f"{trained.run.path.resolve().name}, {trained.checkpoint.name}, as {form}"
        address = repository.fill(parcel, message, private=given.get("private") != "false")
    console.print(f"Published: {address}", soft_wrap=True)
    return 0


def write_model(trained: Trained, form: str, folder: Path, console: Console) -> str:
    """Write the model into an empty folder. Return why it is not what was trained; empty if it is.

    An adapter is copied as the run has sealed it; a merged model is new, and so is verified.
    """
    if form == "adapter":
        from launch.exports.adapter import write_adapter
        from launch.hub.card import base_name

        write_adapter(trained, folder, base_name(trained))
        return ""
    from launch.exports.verified import write_verified

    return write_verified(trained, form, "", "", folder, console).fault


def table(files: list[tuple[str, int]]) -> Table:
    """Return the files of a parcel and their sizes as a table."""
    shown = Table(title="Files", title_justify="left")
    shown.add_column("file")
    shown.add_column("bytes", justify="right")
    for name, size in files:
        shown.add_row(name, f"{size:,}")
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

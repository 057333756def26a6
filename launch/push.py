"""Publish a finished run's trained model on the Hugging Face Hub.

    python launch/push.py RUN_FOLDER to=OWNER/NAME [checkpoint=latest|best|update-…] [format=adapter|merged]
        [private=true|false] [overwrite=true] [dry_run=true]

Examples:

    python launch/push.py runs/quickstart to=me/adder dry_run=true
    python launch/push.py runs/quickstart to=me/adder
    python launch/push.py runs/quickstart to=me/adder-merged format=merged private=false

One commit contains the adapter or the verified merged model, a model card with the run's report, the report itself, the
settings and the metrics. The repository is private unless private=false. The token is only read from HF_TOKEN in the
environment. dry_run=true prints the files and the card, and needs neither token nor network.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import yaml
from huggingface_hub import HfApi, ModelCard, ModelCardData, get_session
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id
from rich.console import Console

from microbudget_rl.actors.formats import money
from microbudget_rl.actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from microbudget_rl.actors.models.files import BUNDLED, name_on_hub
from microbudget_rl.actors.models.prompts import reminder
from microbudget_rl.actors.models.sizes import padded_rank
from microbudget_rl.actors.results import Results, read_run
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.conf.arguments import run_and_options
from microbudget_rl.conf.command import PlainConsole, command
from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.load import RECORD, public_settings, unmoved, with_texts
from microbudget_rl.conf.schema import among, marked
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.trained.policy import Trained, find_trained, prepare_torch

OPTIONS: dict[str, tuple[str, ...]] = {"to": (), "checkpoint": (), "format": ("adapter", "merged")}
OPTIONS |= dict.fromkeys(("private", "overwrite", "dry_run"), ("true", "false"))

TOKEN = "HF_TOKEN"
"""Environment variable of the token, the only place it is read from."""

PATH = re.compile(r"(/[^/\s{}]+){2,}")
"""Pattern of an absolute path, perhaps of another machine. A prompt may also begin with a slash."""

SILENCE_S = 30.0
"""Seconds that the hub may be silent. By default, its library waits forever."""


@command("push.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 published, 1 verification failed, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)
    name = given.get("to", "")
    try:
        validate_repo_id(name)
        if "/" not in name:
            raise HFValidationError("the owner is missing")
    except HFValidationError as error:
        raise BadInput(f"to={name}: {error}; give to=OWNER/NAME, such as to=me/my-model") from None
    prepare_torch()
    return push(folder, given, PlainConsole())


def push(folder: Path, given: dict[str, str], console: Console) -> int:
    """Write all files into a temporary folder, then upload or print them. Return the exit code.

    An adapter is a copy from a checkpoint with checksums; a merged model is new, and therefore verified.
    """
    from microbudget_rl.launch.reporting.page import run_report
    from microbudget_rl.launch.trained.merged import write_verified

    name, form, dry = given["to"], given.get("format", "adapter"), given.get("dry_run") == "true"
    trained = find_trained(folder, given.get("checkpoint", ""))
    if trained.run.finished() is None:
        raise BadInput(f"the run in {folder} has not finished: its model card needs the result, so resume it first")
    if not dry:
        api = connect(name, given.get("overwrite") == "true")
    with scratch_folder("microbudget-push-") as files:
        run = read_run(folder)
        origin = run.origin.model_copy(update={"command": ""})
        run = replace(run, name=name.partition("/")[2], config=public(run.config), origin=origin)
        if form == "adapter":
            shutil.copyfile(trained.adapter / WEIGHTS_FILE, files / WEIGHTS_FILE)
            stated = json.loads((trained.adapter / CONFIG_FILE).read_text())
            stated["base_model_name_or_path"] = trained.base_name
            (files / CONFIG_FILE).write_text(json.dumps(stated, indent=2) + "\n")
        elif fault := write_verified(trained, False, files, console):
            console.print(f"Not published: {fault}")
            return 1
        settings = yaml.safe_dump(public(public_settings(trained.config)), sort_keys=False, allow_unicode=True)
        report = run_report(run, settings)
        card = model_card(trained, run, report.markdown, form, name)
        card.save(files / "README.md")
        (training := files / "training").mkdir()
        (training / trained.run.report.name).write_text(report.html, encoding="utf-8")
        (training / RECORD).write_text(settings, encoding="utf-8")
        if trained.run.metrics.exists():
            shutil.copyfile(trained.run.metrics, training / trained.run.metrics.name)
        for file in sorted(file for file in files.rglob("*") if file.is_file()):
            console.print(f"{file.stat().st_size:13,} bytes  {file.relative_to(files)}")
        if dry:
            console.print(f"{card}\nNothing was uploaded: without dry_run=true, all goes to {name}")
            return 0
        message = f"{trained.run.path.resolve().name}, {trained.checkpoint.name}, as {form}"
        with refusals(name):
            address = api.create_repo(name, private=given.get("private") != "false", exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=files, commit_message=message)
    console.print(f"Published: {address}")
    return 0


def model_card(trained: Trained, run: Results, report: str, form: str, repository: str) -> ModelCard:
    """Return a card with the hub's metadata, the run's report in Markdown, instructions, and limits."""
    version, base = version_of(trained.checkpoint), trained.base_name
    on_hub, price = "/" in base, trained.config.budget.price_per_hour
    metadata = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation={"adapter": "adapter", "merged": "finetune"}[form] if on_hub else None,
        library_name={"adapter": "peft", "merged": "transformers"}[form],
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "rlvr", "grpo", "lora", "reasoning", "microbudget-rl"],
    )
    return ModelCard.from_template(
        metadata,
        template_path=str(Path(__file__).parent / "trained" / "templates" / "card.md"),
        repository=repository,
        base=base if on_hub else "FOLDER_OF_THE_BASE_MODEL",
        revision=name_on_hub(trained.config.model)[1],
        form=form,
        rank=padded_rank(trained.config.lora.rank),
        report=report,
        cost="" if (cost := run.summary.cost) is None else f"{money(cost)} at {price:g} per hour",
        version=version,
        described=run.summary.result.update if run.summary.result else version,
        repacked=trained.config.model.path == BUNDLED,
        reminder="".join(reminder(trained.config)),
    )


def connect(name: str, overwrite: bool) -> HfApi:
    """Return the hub's client. Raises BadInput without a good token, or for a repository with files to keep."""
    if not (token := os.environ.get(TOKEN, "").strip()):
        raise BadInput(f"to={name}: set {TOKEN} in the environment to a token of the Hub with write access")
    get_session().timeout = httpx2.Timeout(SILENCE_S)
    disable_progress_bars()
    api, files = HfApi(token=token), set[str]()
    with refusals(name):
        api.whoami()
        with suppress(RepositoryNotFoundError):
            files = {file.rfilename for file in api.model_info(name, timeout=SILENCE_S).siblings or ()}
    if files - {".gitattributes"} and not overwrite:  # which every repository begins with
        raise BadInput(f"to={name}: it already has files: give another name, or overwrite=true for a new commit")
    return api


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """Raise BadInput if the hub refuses, is silent, or sends a response that its library cannot read."""
    try:
        yield
    except (httpx2.HTTPError, OfflineModeIsEnabled, AttributeError, LookupError, TypeError, ValueError) as error:
        cause = type(error).__name__  # a transport error may quote the token
        if isinstance(error, HfHubHTTPError):
            denied, page = f"the token in {TOKEN} has no write access", f"HTTP {error.response.status_code}"
            cause = {401: denied, 403: denied}.get(error.response.status_code) or (
                in_brief(error) if "json" in error.response.headers.get("content-type", "") else page  # of some proxy
            )
        raise BadInput(f"to={name}: the request to the Hub failed ({cause}); correct that or try again") from None


def public(settings: dict[str, Any]) -> Any:
    """Return settings, nested or by dotted key, with paths on this machine replaced by the names of the files."""

    def name_alone(text: str, key: str) -> str:
        local = among(key, marked("local_path")) and (text.startswith(("/", ".", "~")) or os.path.exists(text))
        here = local or PATH.fullmatch(text) or (text.startswith("/") and os.path.exists(text))
        return Path(text).name if here else text

    return with_texts(unmoved(settings), name_alone)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

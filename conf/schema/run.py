"""The run as a whole: name and folder, budget, checkpoints, dashboard; and what a sweep adds."""

import ipaddress
import re

from pydantic.dataclasses import dataclass

from conf.settings import DECLARED, Rule, setting

PLAIN_NAME = Rule(
    lambda name: re.fullmatch(r"([\w+=@-][\w.+=@ -]*)?", name) is not None and len(name.encode()) <= 200,
    "use a plain folder name, without slashes or a leading dot, of 200 bytes at most",
)


def is_host(text: str) -> bool:
    """Whether a text is an IP address, or has the form of a host's name."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?", text) is not None


YEAR_H = 8784
"""The longest budget, hours."""

HOST = Rule(is_host, "name an address such as 127.0.0.1, or a host")
FOLDER = Rule(
    lambda path: path and "\0" not in path and len(path) <= 3000 and max(map(len, path.split("/"))) <= 255,
    "name a folder, of 255 letters at most, of 3,000 with those above it",
)
TRACKERS = Rule(
    lambda names: {*names} <= {"tensorboard", "wandb"} and len({*names}) == len(names),
    "list tensorboard, wandb, both or neither, each once",
)
URL = Rule(
    lambda url: not url or re.fullmatch(r"[a-z][a-z0-9+]*://((?!::)[^\s@?#])+", url) is not None,
    "give a URL such as s3://bucket/folder or file:///mnt/disk, without a key, which belongs into the environment",
)


@dataclass(config=DECLARED)
class RunConfig:
    """Name, folder and seed."""

    name: str = setting("", "the recipe's name", rule=PLAIN_NAME)
    """Name of the run, and of its folder."""
    folder: str = setting("runs", "our choice", rule=FOLDER, resumable=True, private=True)
    """Folder in which the run has its own."""
    overwrite: bool = setting(
        False, "our choice: a finished run is never lost by accident", resumable=True, momentary=True
    )
    """Start anew over a run, or an evaluation, of that name."""
    on_end: str = setting("", "our choice", resumable=True, private=True)
    """Of run.py: a command for the shell, run once when the run has ended, however it did and after all is written,
    with MICROBUDGET_STATUS, _REASON, _EXIT_CODE, _NAME and _FOLDER in its environment: to shut a rented machine down.
    It has five minutes; whether it fails does not change the exit code."""
    trackers: list[str] = setting(["tensorboard"], "our choice: it needs no server", rule=TRACKERS, resumable=True)
    """Where the run is shown while it goes on: tensorboard, wandb, or neither; docs/how-to/loggers.md."""
    restore: str = setting("", "our choice", rule=URL, resumable=True, private=True)
    """URL of remote checkpoints, as checkpoint.mirror names it: where there is no folder of the run here, it is made
    from there first, and the run goes on. Where checkpoint.mirror is the same and has no such run, it begins."""
    seed: int = setting(0, "our choice", ge=0, le=2**31 - 1)
    """Seed of the adapter's initialisation, the order of problems and every request."""
    mps: bool = setting(False, "our choice: a fault of one process then ends the other", resumable=True)
    """Of run.py: whether engine and learner on one card compute at the same time and not in turn, through NVIDIA's
    Multi-Process Service, which the run starts and ends. Decoding waits for memory and learning for arithmetic, so that
    both are done sooner; but a memory fault of one ends both, which then start again."""
    deterministic: bool = setting(False, "our choice: it costs the overlap, and on a processor more")
    """Whether the run can be repeated to the bit: the same machine, versions and settings give the same metrics, but
    for times, and the same adapters, whether or not the run was interrupted and resumed. Sets learner.max_staleness=0,
    counts a schedule's progress in updates instead of seconds, and so needs budget.updates. On a processor an engine
    answers one request at a time, since the others in a batch change the last digits; on a card vLLM's batch-invariant
    mode is on, which has not been run with this project yet. Still up to the clock are an answer judged just
    within its deadline, a budget that ends the run before its updates, and a validation that a signal cuts short."""


@dataclass(config=DECLARED)
class BudgetConfig:
    """Wall-clock time, from the start of run.py to summary.json, over all resumes of a run; for evaluate.py, of each
    call.
    """

    hours: float = setting(
        24.0, "the paper: a hard cut-off of 24 hours on one card", gt=0, le=YEAR_H, replaces=("minutes",)
    )
    """The budget, hours."""
    minutes: float | None = setting(None, "our choice", gt=0, le=60 * YEAR_H)
    """The budget, minutes; replaces hours when given."""
    updates: int | None = setting(None, "our choice", ge=1)
    """Stop after so many updates, if that is sooner."""
    grace_s: float = setting(60.0, "our choice; clouds warn of an eviction 30 to 120 s ahead", ge=1, le=86400)
    """Seconds that SIGTERM or SIGINT leave for the last checkpoint; a second signal ends them."""
    price_per_hour: float | None = setting(None, "our choice", ge=0)
    """Price of the machine, in any currency; progress and summary then say what the run has cost."""

    @property
    def seconds(self) -> float:
        return self.hours * 3600 if self.minutes is None else self.minutes * 60


@dataclass(config=DECLARED)
class CheckpointConfig:
    """How often the run is saved."""

    every: int = setting(10, "our choice", ge=1)
    """Updates between checkpoints that are kept. Where writing one takes little of the time, another is written about
    every minute, and the next one takes its place."""
    keep_last: int = setting(2, "our choice: one more than needed, should the newest be damaged", ge=1)
    """How many checkpoints to keep."""
    mirror: str = setting("", "our choice", rule=URL, private=True)
    """Remote checkpoints: URL of a folder, as of an object store, into which the run puts itself under its name: the
    latest and the best checkpoint, metrics, samples, events and report, after every checkpoint and at the end."""


@dataclass(config=DECLARED)
class DashboardConfig:
    """Where Ray's dashboard is."""

    host: str = setting("127.0.0.1", "our choice: who reaches the dashboard and has its token can run code", rule=HOST)
    """Address to bind to."""
    port: int = setting(8265, "Ray's default", ge=0, le=65535)
    """Port to bind to; any free one for 0."""


@dataclass(config=DECLARED)
class SweepConfig:
    """Of launch/sweep.py alone, a run has no such section. A cell is one run of a sweep."""

    name: str = setting("", "the recipe's name and -sweep")
    """Folder of the sweep under run.folder, with the cells' folders in it."""
    hours: float | None = setting(None, "our choice", gt=0, le=YEAR_H)
    """Budget of the whole sweep, hours. Of cells that run one after another, each gets an equal part, among those left,
    of what those before it have left of it; the seconds between two cells are not counted. When null, every cell has
    the budget of its own settings."""
    minutes: float | None = setting(None, "our choice", gt=0, le=60 * YEAR_H)
    """Budget of the whole sweep, minutes; replaces hours when given."""

    @property
    def seconds(self) -> float | None:
        hours = None if self.hours is None else self.hours * 3600
        return hours if self.minutes is None else self.minutes * 60

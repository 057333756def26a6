"""The run as a whole: name and folder, budget, checkpoints, dashboard; and the settings of a sweep."""

import re

from pydantic import StrictInt
from pydantic.dataclasses import dataclass

from microbudget_rl.conf.settings import DECLARED, MOST, Rule, setting

PLAIN_NAME = Rule(
    lambda name: re.fullmatch(r"([\w+=@-][\w.+=@ -]*)?", name) is not None and len(name.encode()) <= 200,
    "use a plain folder name, without slashes or a leading dot, of 200 bytes at most",
)


MPS_PERCENTAGE = 80

YEAR_H = 8784
"""Longest budget, hours."""

WHOLE = Rule(lambda numbers: all(1 <= number <= MOST for number in numbers), "use whole numbers from 1")
FOLDER = Rule(lambda path: bool(path) and "\0" not in path, "use the name of a folder")
LOGGERS = Rule(
    lambda names: {*names} <= {"tensorboard", "wandb"} and len({*names}) == len(names),
    "use tensorboard, wandb, both or neither, each once",
)
URL = Rule(
    lambda url: not url or re.fullmatch(r"(?!memory:)[a-z][a-z0-9+]*://((?!::)[^\s@?#])+", url) is not None,
    "use a URL such as s3://bucket/folder or file:///mnt/disk, without a key, which belongs in the environment",
)

SWEEP_NAME = "name the sweep with sweep.name=NAME; its runs are named after their values"
SWEEP_END = "every run would execute it; put it after launch/sweep.py on the shell's command line"
SWEEP_ANEW = "delete the sweep's folder to start anew, or give sweep.name=OTHER"


@dataclass(config=DECLARED, frozen=True)
class RunConfig:
    """Name, folder and seed."""

    name: str = setting("", "the recipe's name", rule=PLAIN_NAME, resumable=False, not_for_sweeps=SWEEP_NAME)
    """Name of the run, and of its folder."""
    folder: str = setting("runs", "our choice", rule=FOLDER, private=True)
    """Folder of all runs; each run has a folder in it."""
    overwrite: bool = setting(
        False,
        "our choice: a finished run is never lost by accident",
        private=True,
        not_for_sweeps=SWEEP_ANEW,
    )
    """Begin a run, or an evaluation, of that name anew. The folder of the old one is renamed to NAME.old-1."""
    on_end: str = setting("", "our choice", private=True, not_for_sweeps=SWEEP_END)
    """For run.py: a shell command, for example to shut a rented machine down. It is executed once, after the run has
    ended for any reason and everything is written, with MICROBUDGET_STATUS, _REASON, _EXIT_CODE, _NAME and _FOLDER in
    its environment. It has five minutes; its failure does not change the exit code."""
    report_to: list[str] = setting(["tensorboard"], "our choice: it needs no server", rule=LOGGERS)
    """Loggers that show the run live: tensorboard, wandb, both or neither; see docs/how-to/long-runs.md."""
    restore: str = setting("", "our choice", rule=URL, private=True)
    """URL of remote checkpoints, in the form of checkpoint.remote. If the run has no folder here, it is first restored
    from there, and the run continues. If checkpoint.remote is the same URL and has no such run, a new run begins."""
    seed: int = setting(0, "our choice", ge=0, le=2**31 - 1, checkpointed="seed", affects="repetition")
    """Seed of the adapter's initialisation, the order of problems and every request."""
    nvidia_mps: str = setting("auto", "our choice: more planned updates on one GPU", choices=("auto", "on", "off"))
    """For run.py: whether engine and learner on one GPU compute at the same time instead of in time slices, through
    NVIDIA's Multi-Process Service, which the run starts and ends. Decoding is memory-bound and learning compute-bound,
    so that they overlap well; but a memory fault of one ends both, which then restart. auto: on if engine and learner
    share a GPU of this machine and a client of the service can compute on it. It is off on a cluster, for parallel runs
    of a sweep, and with learner.max_staleness=0, where nothing computes at the same time."""
    nvidia_mps_percentage: int = setting(
        MPS_PERCENTAGE, "our choice: the other multiprocessors are free for decoding", ge=1, le=100
    )
    """Under NVIDIA's MPS, the percentage of a GPU's multiprocessors that a learner beside an engine may use."""
    deterministic: bool = setting(False, "our choice: it costs the overlap, and on a CPU more", affects="learning")
    """Whether the run can be repeated to the bit: the same machine, versions and settings give the same adapters and
    metrics (except times), even after an interruption. It sets learner.max_staleness=0, paces schedules by updates,
    and so needs budget.updates. On a CPU an engine serves one request at a time; on a GPU it uses vLLM's
    batch-invariant mode, untested here. The clock still decides verification deadlines, the
    end of the budget, and the end of a validation after a signal."""

    @property
    def mps(self) -> bool:
        """Whether MPS is on. A plan resolves auto first."""
        return self.nvidia_mps == "on"


@dataclass(config=DECLARED, frozen=True)
class BudgetConfig:
    """Wall-clock time, from the start of run.py to summary.json, over all resumes of a run; for evaluate.py, of each
    call.
    """

    hours: float = setting(24.0, "the paper: a hard cut-off of 24 hours on one GPU", gt=0, le=YEAR_H)
    """The budget, hours."""
    minutes: float | None = setting(None, "our choice: the hours count", gt=0, le=60 * YEAR_H, follows="budget.hours")
    """The budget, minutes; replaces hours when given."""
    updates: int | None = setting(None, "our choice: time alone ends a run", ge=1)
    """Number of updates after which to stop, if that is sooner."""
    grace_s: float = setting(60.0, "our choice; clouds warn of an eviction 30 to 120 s ahead", ge=1, le=86400)
    """Seconds for the last checkpoint after SIGTERM or SIGINT; a second signal cuts them short."""
    price_per_hour: float | None = setting(None, "our choice: every machine has its own", ge=0, affects="operation")
    """Price of the machine, in any currency; progress and summary then show the cost of the run."""

    @property
    def seconds(self) -> float:
        return self.hours * 3600 if self.minutes is None else self.minutes * 60


@dataclass(config=DECLARED, frozen=True)
class CheckpointConfig:
    """How often the run is saved."""

    every: int = setting(10, "our choice", ge=1)
    """Updates between checkpoints that are kept. In between, a temporary checkpoint is written about once a minute if
    that is cheap; the next one replaces it."""
    keep_last: int = setting(2, "our choice: one more than needed, should the newest be damaged", ge=1)
    """Number of checkpoints to keep."""
    remote: str = setting("", "our choice", rule=URL, private=True)
    """Remote checkpoints: URL of a folder, such as one in an object store. The run is copied there under its name:
    the latest and the best checkpoint and all other files, after every checkpoint and at the end."""


@dataclass(config=DECLARED, frozen=True)
class DashboardConfig:
    """Ray's dashboard, on the loopback interface."""

    port: int | None = setting(None, "8265, Ray's default, or the next free one", ge=0, le=65535)
    """Port to bind to; any free one for 0."""


@dataclass(config=DECLARED, frozen=True)
class SweepConfig:
    """Axes, benchmarks, name and budget of a sweep, only for launch/sweep.py: other commands ignore them in a recipe,
    and no recipe inherits them. models=, ranks=, seeds=, benchmarks= and n= on its command line replace them.
    """

    name: str = setting("", "the recipe's name and -sweep")
    """Folder of the sweep under run.folder, with the runs' folders in it."""
    hours: float | None = setting(None, "our choice", gt=0, le=YEAR_H)
    """Budget of the whole sweep, hours. Consecutive runs share it: each gets an equal part of the time that is left;
    seconds between two runs are not counted. When null, every run has the budget of its own
    settings."""
    minutes: float | None = setting(None, "our choice", gt=0, le=60 * YEAR_H)
    """Budget of the whole sweep, minutes; replaces hours when given."""
    models: list[str] = setting([], "our choice: the recipe's model", local_path=True)
    """Recipes or paths of the models to compare. A recipe that states this section with models gives each run those of
    its settings that the model's recipe does not extend."""
    ranks: list[StrictInt] = setting([], "our choice: the recipe's rank")
    """Ranks to compare, values of lora.rank."""
    seeds: list[StrictInt] = setting([], "our choice: the recipe's seed")
    """Values of run.seed. The evaluations on the benchmarks have the first one."""
    benchmarks: list[str] = setting([], "our choice: the held-out problems of each run are enough")
    """Benchmarks, as those of evaluate.py, on which the base models and the result of every run are
    evaluated. Their time comes on top of the budget."""
    n: int = setting(16, "the paper: pass@1, @8 and @16", ge=1, le=65536)
    """Samples per problem of a benchmark."""
    pass_at: list[StrictInt] = setting([1, 8, 16], "the paper", rule=WHOLE)
    """Values of k for the tables of pass@k on the benchmarks; n is at least the largest."""
    remark: str = setting("", "our choice")
    """A sentence at the top of the sweep's report, such as what it cannot show."""

    @property
    def seconds(self) -> float | None:
        hours = None if self.hours is None else self.hours * 3600
        return hours if self.minutes is None else self.minutes * 60

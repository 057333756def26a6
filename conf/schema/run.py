"""The run as a whole: name and folder, budget, checkpoints, dashboard; and the settings of a sweep."""

import re
from pathlib import Path

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
SWEEP_NAME = "name the sweep with sweep.name=NAME; its runs are named after their values"
SWEEP_END = "every run would execute it; put it after launch/sweep.py on the shell's command line"
SWEEP_ANEW = "delete the sweep's folder to start again, or give sweep.name=OTHER"


@dataclass(config=DECLARED, frozen=True)
class RunConfig:
    """Name, folder and seed."""

    name: str = setting("", "our choice", rule=PLAIN_NAME, resumable=False, not_for_sweeps=SWEEP_NAME)
    """Name of the run and of its folder. Empty: the recipe's name."""
    folder: str = setting("runs", "our choice", rule=FOLDER, private=True)
    """Folder that contains the folders of all runs."""
    overwrite: bool = setting(
        False,
        "our choice: a finished run is never lost by accident",
        private=True,
        not_for_sweeps=SWEEP_ANEW,
    )
    """Start a run or an evaluation again from the beginning. Its old folder is renamed to NAME.old-1."""
    on_end: str = setting("", "our choice", private=True, not_for_sweeps=SWEEP_END)
    """For run.py: a shell command to execute once, after the run has ended for any reason and everything is written,
    for example to shut down a rented machine. Its environment contains MICROBUDGET_STATUS, _REASON, _EXIT_CODE, _NAME
    and _FOLDER. It may take five minutes; its failure does not change the exit code."""
    report_to: list[str] = setting(["tensorboard"], "our choice: TensorBoard needs no server", rule=LOGGERS)
    """Loggers that show the run live. docs/how-to/long-runs.md explains them."""
    seed: int = setting(0, "our choice", ge=0, le=2**31 - 1, checkpointed="seed", affects="repetition")
    """Seed of the adapter's initial values, the order of problems and every request."""
    nvidia_mps: str = setting("auto", "our choice: more planned updates on one GPU", choices=("auto", "on", "off"))
    """For run.py: whether engine and learner on one GPU compute at the same time, through NVIDIA's Multi-Process
    Service (MPS), which the run starts and stops, instead of in time slices. Decoding waits for memory and learning for
    arithmetic, so they overlap well. But a memory fault of one stops both; both then restart. auto: on if both share a
    GPU of this machine and a test of the service succeeds. MPS is off on a cluster, for parallel runs of a sweep, and
    with learner.max_staleness=0."""
    nvidia_mps_percentage: int = setting(MPS_PERCENTAGE, "our choice: the others stay free for decoding", ge=1, le=100)
    """Under MPS: percentage of a GPU's multiprocessors that a learner may use next to an engine."""
    deterministic: bool = setting(False, "our choice: it is slower, most of all on a CPU", affects="learning")
    """Whether the run can be repeated to the bit: the same machine, versions and settings give the same adapters and
    metrics (except times), even after an interruption. It sets learner.max_staleness=0, paces schedules by updates and
    needs budget.updates. On a CPU an engine serves one request at a time; on a GPU it uses vLLM's batch-invariant mode,
    untested here. The clock still decides verification deadlines, the end of the budget, and the end of a validation
    after a signal."""

    @property
    def path(self) -> Path:
        """The run's own folder."""
        return Path(self.folder, self.name)

    @property
    def mps(self) -> bool:
        """Whether MPS is on. A plan resolves auto first."""
        return self.nvidia_mps == "on"


@dataclass(config=DECLARED, frozen=True)
class BudgetConfig:
    """Wall-clock time from the start of run.py to summary.json, summed over all resumes; for evaluate.py, per call."""

    hours: float = setting(24.0, "the paper's cut-off: 24 hours on one GPU", gt=0, le=YEAR_H)
    """The budget, hours."""
    minutes: float | None = setting(None, "our choice", gt=0, le=60 * YEAR_H, follows="budget.hours")
    """The budget, minutes. It replaces the hours."""
    updates: int | None = setting(None, "our choice", ge=1)
    """Number of updates after which the run ends, even if time is left."""
    grace_s: float = setting(60.0, "our choice: clouds announce an eviction 30 to 120 s before it", ge=1, le=86400)
    """Seconds for the last checkpoint after SIGTERM or SIGINT. A second signal ends them early."""
    price_per_hour: float | None = setting(None, "our choice", ge=0, affects="operation")
    """Price of the machine, in any currency. Plan, progress and summary then show the cost."""

    @property
    def seconds(self) -> float:
        return self.hours * 3600 if self.minutes is None else self.minutes * 60


@dataclass(config=DECLARED, frozen=True)
class CheckpointConfig:
    """How often the run is saved."""

    every: int = setting(10, "our choice", ge=1)
    """Updates between checkpoints that are kept. In between, a temporary checkpoint is written about once a minute if
    that takes little time, and replaced by the next one."""
    keep_last: int = setting(2, "our choice: one more than needed, in case the newest is damaged", ge=1)
    """Number of checkpoints to keep."""
    copy: str = setting("", "our choice", private=True)
    """A shell command that copies the run to another machine or an object store, executed after every checkpoint, while
    the training continues, and at the end. Its environment contains MICROBUDGET_FOLDER, the folder to copy, with the
    latest and the best checkpoint and all other files of the run, and MICROBUDGET_NAME. Before the run starts, an empty
    folder is copied."""


@dataclass(config=DECLARED, frozen=True)
class DashboardConfig:
    """Ray's dashboard, on the loopback interface."""

    port: int | None = setting(None, "Ray's default", ge=0, le=65535)
    """Port of the dashboard; 0 for any free port. Null: 8265 or the next free port."""


@dataclass(config=DECLARED, frozen=True)
class SweepConfig:
    """Axes, benchmarks, name and budget of a sweep, for launch/sweep.py. Other commands ignore them in a recipe, and no
    recipe inherits them. models=, ranks=, seeds=, benchmarks= and n= on the command line replace them.
    """

    name: str = setting("", "our choice")
    """Folder of the sweep in run.folder; it contains the folders of the sweep's runs. Empty: the recipe's name and
    -sweep."""
    hours: float | None = setting(None, "our choice", gt=0, le=YEAR_H)
    """Budget of the whole sweep, hours. Consecutive runs share it: each run gets an equal part of the time that is
    left, without the seconds between runs. Null: every run has its own `budget`."""
    minutes: float | None = setting(None, "our choice", gt=0, le=60 * YEAR_H)
    """Budget of the whole sweep, minutes. It replaces the hours."""
    models: list[str] = setting([], "our choice", local_path=True)
    """Models to compare, as recipes or paths. If a recipe states this list, its other settings apply to every run, on
    top of the model's recipe. Empty: the recipe's model."""
    ranks: list[StrictInt] = setting([], "our choice")
    """Values of lora.rank to compare. Empty: the recipe's."""
    seeds: list[StrictInt] = setting([], "our choice")
    """Values of run.seed; evaluations on benchmarks use the first one. Empty: the recipe's."""
    benchmarks: list[str] = setting([], "our choice: each run's held-out problems are enough")
    """Benchmarks on which the base models and every run's result are evaluated, as in `benchmarks` of evaluate.py.
    Their time is not part of the budget."""
    n: int = setting(16, "the paper's pass@1, @8 and @16", ge=1, le=65536)
    """Samples per problem of a benchmark."""
    pass_at: list[StrictInt] = setting([1, 8, 16], "as in the paper", rule=WHOLE)
    """Values of k for the tables of pass@k on the benchmarks. The largest is at most n."""
    remark: str = setting("", "our choice")
    """A sentence at the top of the sweep's report, for example what the sweep cannot show."""

    @property
    def seconds(self) -> float | None:
        hours = None if self.hours is None else self.hours * 3600
        return hours if self.minutes is None else self.minutes * 60

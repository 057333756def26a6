"""What is refused before the first run of a sweep starts, besides the settings of single runs."""

from dataclasses import asdict, replace

from actors.evaluation.folder import EvaluationFolder
from actors.storage.documents import SweepDocument
from actors.storage.files import read_document
from conf.errors import BadInput
from conf.load import flatten
from conf.schema import DataConfig, affecting, among
from conf.settings import show
from launch.sweep_runs.jobs import Grid
from rewards.problems import sources
from rewards.problems.loading import EVAL_SEED, TRAIN_SEED
from rewards.problems.sources import GENERATED


def check_comparable(grid: Grid) -> None:
    """Raise BadInput if validation would choose on other problems in some runs, or if the results of a model's runs
    cannot be compared with one evaluation of it.
    """
    first, *others = (flatten(asdict(run.config)) for run in grid.runs)
    varied = [key for key in first if any(other.get(key) != first[key] for other in others)]
    validated = {bool(run.config.validation.every) for run in grid.runs}
    if len(validated) > 1:
        raise BadInput("validation.every: only some runs would have their result chosen; give 0 for all, or for none")
    data = [run.config.data for run in grid.runs]
    held = [one.eval_source or one.source for each in data for one in each.by_source.values()]
    sized = any(source.startswith(GENERATED) for source in held)
    selection = affecting("held_out", *["split"] * any(not each.eval_source for each in data))
    free = () if sized else ("data.size",)
    for key in (key for key in varied if True in validated and among(key, selection) and key not in free):
        raise BadInput(f"{key}: validation would choose on different problems in the runs; give one value for all")
    fixed = affecting("evaluation", "prompt", "response", "verdict")
    for key in (key for key in grid.axes if grid.settings.benchmarks and among(key, fixed)):
        raise BadInput(f"{key}: a base model is evaluated once for all of its runs; give one value, or benchmarks=[]")


def check_known(grid: Grid) -> None:
    """Raise BadInput if the sweep's folder has more runs, or evaluations of other benchmarks, n or seed."""
    if (sweep := read_document(grid.folder / "sweep.json", SweepDocument)) is None:
        return
    name, asked, other = f"sweep {grid.name!r}", [run.overrides for run in grid.runs], "or give sweep.name=OTHER"
    if left_out := [entry.name for entry in sweep.runs if entry.overrides not in asked]:
        raise BadInput(f"{name} has a run {left_out[0]} that this command leaves out: list its values too, {other}")
    then, now = (f"benchmarks={show(each.benchmarks)} n={each.n}" for each in (sweep, grid.settings))
    if sweep.benchmarks and then != now:
        raise BadInput(f"{name} was begun with {then}, not {now}: give the same, {other}")
    for folder in (grid.folder / base.name / "evaluation" for base in sweep.bases):
        if (known := EvaluationFolder(folder).document()) and (seed := known.protocol.seed) != grid.seed:
            raise BadInput(f"{folder} has the seed {seed}, not {grid.seed}: list that seed first, {other}")


def check_sources(grid: Grid) -> None:
    """Raise BadInput for a source of problems that unfinished runs cannot read. A generator makes only one."""
    read: list[tuple[str, DataConfig]] = []
    for data in (run.config.data for run in grid.runs if not run.record.finished()):
        held = replace(data, source=data.eval_source, mixture=[])
        for key, each, seed in (
            *((data.key, one, TRAIN_SEED) for one in data.by_source.values()),
            ("data.eval_source", held, EVAL_SEED),
        ):
            size = 1 if each.source.startswith(GENERATED) else each.size
            one = replace(each, eval_source="", size=size)
            if one.source and (key, one) not in read:
                read.append((key, one))
                sources.read(key, one.source, one, seed)

"""Every run measures how far its machine is from the predicted times, and keeps that for the next plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev

from pydantic import TypeAdapter, ValidationError

from actors.formats import duration
from actors.storage.files import replace_text
from actors.storage.run_record import RunRecord
from conf.departed import without_departed
from conf.schema import Config
from conf.settings import build
from launch.hardware.machine import Machine
from launch.plan.plan import Plan, make_plan
from launch.plan.time import UNMEASURED, Calibration, Workload

Row = Mapping[str, float]
"""A row of metrics.jsonl."""

KEPT = "calibration.json"
"""Name of the file with all measurements, in the folder of all runs."""

CALIBRATIONS = TypeAdapter(dict[str, Calibration])

WARM_UP = 2
"""Number of first updates that are not measured: kernels are used for the first time in them."""

ENOUGH = WARM_UP + 4
"""Number of updates after which a run can be measured."""

LEARNING = ("update", "canary", "sync", "checkpoint")
"""Activities of the learner in an update, in the ledger's words."""

LEAST_VARIED = 0.05
"""Smallest fraction of groups with something to learn from: a plan divides by it."""

LEAST_FACTOR = 0.05
"""Smallest factor of a calibration: a part that takes less is lost in the parts around it."""


@dataclass(frozen=True)
class Pace:
    """Mean seconds of an update in a run.

    start_s: until the first group is requested
    generate_s: in which any engine generates
    learn_s: in which the learner works
    """

    start_s: float
    update_s: float
    generate_s: float
    learn_s: float

    @classmethod
    def between(cls, rows: Sequence[Row], skipped: int) -> "Pace":
        """Read the pace from rows of metrics.jsonl, without the first ones."""
        first, last, count = rows[skipped - 1], rows[-1], len(rows) - skipped

        def passed(*names: str) -> float:
            return sum(last.get(name, 0.0) - first.get(name, 0.0) for name in names) / count

        return cls(
            start_s=first["ledger/run/start"] + first["ledger/run/starting"],
            update_s=passed("budget/spent_s"),
            generate_s=passed("ledger/rollouts/generate"),
            learn_s=passed(*(f"ledger/learner/{activity}" for activity in LEARNING)),
        )

    @property
    def rollouts_idle(self) -> float:
        return 1 - self.generate_s / self.update_s

    @property
    def learner_idle(self) -> float:
        return 1 - self.learn_s / self.update_s


def learn_from(folder: Path, machine: Machine) -> str:
    """Measure the run in a folder, keep the result for the next plan, and say how long its updates have taken.

    Return nothing while there are too few updates, or where the machine's rates are not known.
    """
    run = RunRecord(folder)
    rows = run.rows()
    if not machine.rates or len(rows) < ENOUGH:
        return ""
    keep(measure(folder, machine), read_config(run), machine)
    return f"Measured for the next plan: an update has taken {duration(Pace.between(rows, 1).update_s)} so far"


def measure(folder: Path, machine: Machine) -> Calibration:
    """Return the calibration of a machine by a run of at least ENOUGH updates on it."""
    run = RunRecord(folder)
    config, rows = read_config(run), run.rows()
    workload = _workload(run, rows[WARM_UP:])
    plan = make_plan(config, machine, replace(UNMEASURED, workload=workload))
    assert plan.estimate is not None
    factors = {
        part: max(seconds / predicted, LEAST_FACTOR)
        for part, (seconds, predicted) in _seconds(rows, plan).items()
        if seconds and predicted
    }
    evaluate_s = plan.estimate.evaluate_s * factors.get("decode", 1.0)
    return Calibration(
        **factors,
        score=factors.get("learn", 1.0),
        start_s=max(Pace.between(rows, WARM_UP).start_s - evaluate_s, 0.0),
        workload=workload,
        of=f"{len(rows) - WARM_UP} updates of {config.model.path} at rank {config.lora.rank}",
    )


def _workload(run: RunRecord, rows: Sequence[Row]) -> Workload:
    samples = [sample for update in run.sampled_updates()[WARM_UP:] for sample in run.samples(update)]
    lengths, prompts = [sample["tokens"] for sample in samples], [sample["prompt"] for sample in samples]
    prompt = fmean(row["prompt/mean_length"] for row in rows)
    shared = sum(1 for _ in takewhile(lambda characters: len(set(characters)) == 1, zip(*prompts, strict=False)))
    return Workload(
        prompt=prompt,
        fresh=prompt * (1 - shared / max(map(len, prompts))),
        response=fmean(row["completion/mean_length"] for row in rows),
        spread=pstdev(lengths) / fmean(lengths),
        varied=min(max(1 - fmean(row["groups/zero_variance"] for row in rows), LEAST_VARIED), 1.0),
    )


def _seconds(rows: Sequence[Row], plan: Plan) -> dict[str, tuple[float, float]]:
    """Return measured and predicted seconds of each part of a Calibration, for the same amount of work.

    Measured seconds are 0 where there was no such work.
    """
    config, costs, expected = plan.config, plan.costs, plan.estimate
    assert costs is not None
    assert expected is not None

    def total(name: str) -> float:
        return sum(row[name] for row in rows[WARM_UP:])

    problems, count, steps = config.learner.problems_per_update, len(rows) - WARM_UP, config.algorithm.steps_per_batch
    varied = count - total("groups/zero_variance")
    trained = total("tokens/trained") + varied * problems * plan.workload.fresh
    passes = total("time/learn") - total("time/step")  # over a batch once: the later passes are part of the step
    return {
        "decode": (Pace.between(rows, WARM_UP).generate_s, expected.generate_s),
        "learn": (
            passes / trained if trained else 0.0,
            expected.contended * costs.learn_s / steps / len(plan.placement.learners),
        ),
        "update": (max(total("time/step") - (steps - 1) * passes, 0.0) / count, costs.update_s),
        "swap": (total("time/sync") / count, costs.swap_s),
        "verify": (total("time/verify") / count, costs.verify_s * config.rollout.samples_per_problem),
    }


def read_config(run: RunRecord) -> Config:
    """Return the configuration of a run."""
    config: Config = build(Config, without_departed(run.config()))
    return config


def plan_measured(config: Config, machine: Machine, folder: Path | None = None) -> Plan:
    """Plan a run by the measurements of earlier runs on the machine. folder: that of the runs, if not `run.folder`."""
    return make_plan(config, machine, recall(config, machine, folder))


def keep(calibration: Calibration, config: Config, machine: Machine) -> None:
    """Keep a measurement for the next plan with the same `run.folder`; it replaces the last one of its kind."""
    key, file = _machine_key(config, machine) + _lengths_key(config), kept_in(config)
    known = _known(file)
    known.pop(key, None)  # the newest is the last
    known[key] = calibration
    file.parent.mkdir(parents=True, exist_ok=True)  # the doctor measures before there is a run
    replace_text(file, CALIBRATIONS.dump_json(known, indent=1).decode() + "\n")


def recall(config: Config, machine: Machine, folder: Path | None = None) -> Calibration:
    """Return the last measurement of a model on this machine in this dtype, with its workload only at the same lengths.

    Of another machine return the workload alone: the length of responses does not depend on it. folder: see
    `plan_measured`.
    """
    here, lengths = _machine_key(config, machine), _lengths_key(config)
    known = _known(folder / KEPT if folder else kept_in(config))
    if on_this := [found for key, found in known.items() if key.startswith(here)]:
        return known.get(here + lengths) or replace(on_this[-1], workload=None)
    model = f", {config.model.path} in "
    elsewhere = [found.workload for key, found in known.items() if model in key and key.endswith(f": {lengths}")]
    return replace(UNMEASURED, workload=elsewhere[-1] if elsewhere else None)


def _known(file: Path) -> dict[str, Calibration]:
    """Return all measurements; none if the file cannot be read, since a plan can do without."""
    try:
        return CALIBRATIONS.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}


def kept_in(config: Config) -> Path:
    """Return the file of all measurements; runs of a sweep share the one beside the sweep's folder."""
    folder = Path(config.run.folder)
    return (folder.parent if (folder / "sweep.json").exists() else folder) / KEPT


def _machine_key(config: Config, machine: Machine) -> str:
    """Name machine, model, dtype and the switches that change the speed of a GPU."""
    units = "" if machine.gpus else f" × {len(machine.cores)}"
    switched = {
        "run.mps": config.run.mps,
        "plain kernels": not config.learner.fused_kernels,
        "vLLM's block sizes": not config.rollout.lora_kernel_sizes,
    }
    with_these = "".join(f" with {name}" for name, on in switched.items() if on and machine.gpus)
    return f"{machine.name}{units}, {config.model.path} in {config.model.dtype}{with_these}: "


def _lengths_key(config: Config) -> str:
    """Name the settings that decide the lengths of prompts and responses."""
    return f"{config.data.source}, {config.rollout.max_response_tokens}"

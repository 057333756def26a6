"""How far a machine is from the predicted times: measured by every run, kept for the next plan."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

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

Row = dict[str, float]

KEPT = "calibration.json"
"""In the folder of all runs: what they have measured."""

WARM_UP = 2
"""First updates, left out because kernels are used for the first time."""

ENOUGH = WARM_UP + 4
"""Updates after which a run can be measured."""

LEARNING = ("update", "canary", "sync", "checkpoint")
"""What the learner does for an update, in the ledger's words."""

LEAST_VARIED = 0.05
"""Smallest fraction of groups with something to learn from: a plan divides by it."""

LEAST = 0.05
"""Smallest factor: a part that takes less is lost in what is around it."""


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
    def between(cls, rows: Sequence[Mapping[str, float]], skipped: int) -> "Pace":
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
        """Fraction of the time in which no engine generates."""
        return 1 - self.generate_s / self.update_s

    @property
    def learner_idle(self) -> float:
        return 1 - self.learn_s / self.update_s


def learn_from(folder: Path, machine: Machine) -> str:
    """Measure the run in a folder, keep the result for the next plan, and say how long its updates have taken.

    Empty while there are too few updates, or where the machine's rates are not known.
    """
    rows = [row.metrics for row in RunRecord(folder).rows()]
    if not machine.rates or len(rows) < ENOUGH:
        return ""
    config, found = read_config(RunRecord(folder)), measure(folder, machine)
    keep(found, config, machine)
    return f"Measured for the next plan: an update has taken {duration(Pace.between(rows, 1).update_s)} so far"


def measure(folder: Path, machine: Machine) -> Calibration:
    """Return what a run of at least ENOUGH updates says about its machine: measured seconds over predicted ones."""
    run = RunRecord(folder)
    config, rows = read_config(run), [row.metrics for row in run.rows()]
    measured = rows[WARM_UP:]
    workload = _workload(run, measured)
    of = f"{len(measured)} updates of {config.model.path} at rank {config.lora.rank}"
    plan = make_plan(config, machine, replace(UNMEASURED, workload=workload))
    factors: dict[str, Any] = {
        name: max(seconds / predicted, LEAST)
        for name, (seconds, predicted) in _seconds(rows, plan).items()
        if seconds and predicted
    }
    found = replace(UNMEASURED, workload=workload, of=of, **factors)
    corrected = make_plan(config, machine, found).estimate
    assert corrected is not None
    score = (fmean(row["time/canary"] for row in measured) - corrected.waits_s) / corrected.scores_s
    start_s = Pace.between(rows, WARM_UP).start_s - corrected.evaluate_s
    return replace(found, score=max(score, LEAST), start_s=max(start_s, 0.0))


def _workload(run: RunRecord, rows: Sequence[Row]) -> Workload:
    samples = [sample for update in run.sampled_updates()[WARM_UP:] for sample in run.samples(update)]
    lengths, prompts = [sample.tokens for sample in samples], [sample.prompt for sample in samples]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    prompt = fmean(row["prompt/mean_length"] for row in rows)
    return Workload(
        prompt=prompt,
        fresh=prompt * (1 - sum(1 for _ in alike) / max(map(len, prompts))),
        response=fmean(row["completion/mean_length"] for row in rows),
        spread=pstdev(lengths) / fmean(lengths),
        varied=min(max(1 - fmean(row["groups/zero_variance"] for row in rows), LEAST_VARIED), 1.0),
    )


def _seconds(rows: Sequence[Row], plan: Plan) -> dict[str, tuple[float, float]]:
    """Return the measured seconds behind each factor of a Calibration and the planned ones, per unit of its work.
    Measured ones are 0 where there was no such work.
    """
    config, costs, found = plan.config, plan.costs, plan.estimate
    assert costs is not None
    assert found is not None

    def total(name: str) -> float:
        return sum(row[name] for row in rows[WARM_UP:])

    problems, count, steps = config.learner.problems_per_update, len(rows) - WARM_UP, config.algorithm.steps_per_batch
    varied = count - total("groups/zero_variance")
    trained = total("tokens/trained") + varied * problems * plan.workload.fresh
    passes = total("time/learn") - total("time/step")  # over a batch once: the later passes are part of the step
    checkpoints = 1 + len(rows) // config.checkpoint.every
    return {
        "decode": (Pace.between(rows, WARM_UP).generate_s, found.generate_s),
        "learn": (
            passes / trained if trained else 0.0,
            found.contended * costs.learn_s / steps / len(plan.placement.learners),
        ),
        "update": (max(total("time/step") - (steps - 1) * passes, 0.0) / count, costs.update_s),
        "swap": (total("time/sync") / count, costs.swap_s),
        "verify": (total("time/verify") / count, costs.verify_s * config.rollout.samples_per_problem),
        "checkpoint": (rows[-1].get("ledger/learner/checkpoint", 0.0) / checkpoints, costs.checkpoint_s),
    }


def read_config(run: RunRecord) -> Config:
    """Return the configuration of a run."""
    config: Config = build(Config, without_departed(run.config()))
    return config


def plan_measured(config: Config, machine: Machine, folder: Path | None = None) -> Plan:
    """Plan a run by what earlier runs on the machine have measured. folder: that of the runs, if not `run.folder`."""
    return make_plan(config, machine, recall(config, machine, folder))


def keep(calibration: Calibration, config: Config, machine: Machine) -> None:
    """Keep a measurement for the next plan with the same `run.folder`, in the place of the last one like it."""
    key = _machine_key(config, machine) + _lengths_key(config)
    file = kept_in(config)
    known = {other: found for other, found in _known(file).items() if other != key} | {key: asdict(calibration)}
    file.parent.mkdir(parents=True, exist_ok=True)  # the doctor measures before there is a run
    replace_text(file, json.dumps(known, indent=1) + "\n")


def recall(config: Config, machine: Machine, folder: Path | None = None) -> Calibration:
    """Return what was measured of a model on this machine in this dtype; its workload only with the same lengths. Of
    another machine the workload alone: how long answers are does not depend on it. folder: see `plan_measured`.
    """
    here, lengths = _machine_key(config, machine), _lengths_key(config)
    kept = _known(folder / KEPT if folder else kept_in(config))
    found = {name: read for name, entry in kept.items() if (read := _read(entry))}
    known = {name: read for name, read in found.items() if name.startswith(here)}
    if known:
        return known.get(here + lengths) or replace(list(known.values())[-1], workload=None)
    model = f", {config.model.path} in "
    elsewhere = [read for name, read in found.items() if model in name and name.endswith(f": {lengths}")]
    return replace(UNMEASURED, workload=elsewhere[-1].workload if elsewhere else None)


def _known(file: Path) -> dict[str, Any]:
    """Return all that was kept; nothing if the file cannot be read, since a plan can do without."""
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _read(entry: Any) -> Calibration | None:
    """Return an entry as this version writes it, else None."""
    try:
        return TypeAdapter(Calibration).validate_python(entry, extra="forbid")
    except ValidationError:
        return None


def kept_in(config: Config) -> Path:
    """Return the file of all that was measured: of the runs in a sweep's folder the one beside that."""
    folder = Path(config.run.folder)
    return (folder.parent if (folder / "sweep.json").exists() else folder) / KEPT


def _machine_key(config: Config, machine: Machine) -> str:
    """Name what decides how far a machine is from the predicted times, on a card with what is switched there."""
    units = "" if machine.gpus else f" × {len(machine.cores)}"
    switched = {
        "run.mps": config.run.mps,
        "plain kernels": not config.learner.fused_kernels,
        "vLLM's block sizes": not config.rollout.lora_kernel_sizes,
    }
    with_these = "".join(f" with {name}" for name, on in switched.items() if on and machine.gpus)
    return f"{machine.name}{units}, {config.model.path} in {config.model.dtype}{with_these}: "


def _lengths_key(config: Config) -> str:
    """Name what decides the lengths of prompts and answers."""
    return f"{config.data.source}, {config.rollout.max_response_tokens}"

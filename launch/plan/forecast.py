"""How a planned run would go within its budget, and what other settings or machines would change."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from actors.coordinator.budget import EVALUATION_SAFETY, MOST_EVALUATION
from actors.runtime.placement import most_ranks
from conf.devices import CARD_DTYPE
from conf.errors import BadInput
from conf.load import flatten
from conf.schema.learner import LearnerConfig
from launch.hardware.machine import Machine
from launch.plan.fit import misfit
from launch.plan.plan import Plan, make_plan, plan_for, with_problems
from launch.plan.refusal import advice
from launch.plan.time import EFFICIENCY, LEARN_RANGE

LEARNING = ("update", "canary", "sync", "checkpoint")
"""What the learner does for an update, in the ledger's words."""

BUSY = 0.8
"""Share of the time from which on a part is the bottleneck; if none works so much, waits for each other are."""


IMMATERIAL = ("run.name", "run.seed", "learner.learning_rate", "learner.schedule", "lora.alpha")
"""Settings that change no figure of a plan, and in which the runs of a sweep often differ."""


@dataclass(frozen=True)
class Pace:
    """Mean seconds of an update in a run, planned or real.

    start_s: until the first group is asked for
    generate_s: in which any engine generates
    engine_s: in which one engine generates, in the mean over engines; 0 where it was not recorded
    learn_s: in which the learner works
    staleness: versions that the oldest group of an update lags behind
    """

    start_s: float
    update_s: float
    generate_s: float
    engine_s: float
    learn_s: float
    staleness: float

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
            engine_s=passed("engines/busy_s"),
            learn_s=passed(*(f"ledger/learner/{activity}" for activity in LEARNING)),
            staleness=sum(row["staleness/max"] for row in rows[skipped:]) / count,
        )

    @property
    def rollouts_busy(self) -> float:
        return self.engine_s / self.update_s

    @property
    def rollouts_idle(self) -> float:
        """Share of the time in which no engine generates."""
        return 1 - self.generate_s / self.update_s

    @property
    def learner_busy(self) -> float:
        return self.learn_s / self.update_s

    @property
    def learner_idle(self) -> float:
        return 1 - self.learner_busy


@dataclass(frozen=True)
class Forecast(Pace):
    """The pace of a planned run."""

    plan: Plan

    @property
    def groups_per_s(self) -> float:
        return self.plan.config.learner.problems_per_update / self.update_s

    @property
    def bottleneck(self) -> str:
        if max(self.rollouts_busy, self.learner_busy) < BUSY:
            return "waits"
        return "generation" if self.engine_s > self.learn_s else "learning"

    @property
    def evaluate_s(self) -> float:
        assert self.plan.estimate is not None
        return self.plan.estimate.evaluate_s

    @property
    def updates(self) -> int:
        """Updates that fit the budget beside the start, both evaluations and validations."""
        budget = self.plan.config.budget
        reserve = min(EVALUATION_SAFETY * self.evaluate_s, MOST_EVALUATION * budget.seconds)
        left = budget.seconds - self.start_s - self.evaluate_s - reserve
        updates = max(0, int(left / (self.update_s + self.validate_s)))
        return updates if budget.updates is None else min(updates, budget.updates)

    @property
    def kept(self) -> dict[str, float]:
        """What a run keeps of its plan, to be compared with what came of it."""
        return {"updates": self.updates, "update_s": self.update_s, "start_s": self.start_s}

    @property
    def spent_s(self) -> float:
        """Seconds of the budget that are spent: all, unless the number of updates is limited."""
        budget = self.plan.config.budget
        asked = self.start_s + self.updates * (self.update_s + self.validate_s) + 2 * self.evaluate_s
        return min(asked, budget.seconds) if budget.updates else budget.seconds

    @property
    def validate_s(self) -> float:
        """Seconds of validation for an update, up to the share it may have."""
        config, validation = self.plan.config, self.plan.config.validation
        if not validation.every or not config.eval.problems:
            return 0.0
        problems = min(validation.problems, config.eval.problems)
        each = self.evaluate_s * problems / (config.eval.problems * config.eval.n)
        most = self.update_s * validation.share / (1 - validation.share) if validation.share < 1 else math.inf
        return min(each / validation.every, most)


def forecast(plan: Plan) -> Forecast:
    """Return the pace of a planned run. The plan must have an estimate."""
    assert plan.costs is not None
    assert plan.estimate is not None
    found = plan.estimate
    return Forecast(
        start_s=plan.costs.start_s,
        update_s=found.update_s,
        generate_s=found.generate_s,
        engine_s=found.generate_s,
        learn_s=found.learn_s,
        staleness=found.staleness,
        plan=plan,
    )


def foresee(plan: Plan) -> tuple[Plan, Forecast | None]:
    """Return a plan with its problems counted, and how it would go; None where it has no estimate."""
    counted = with_problems(plan)
    return counted, forecast(counted) if counted.estimate else None


def foresee_all(plans: Mapping[str, Plan]) -> dict[str, Forecast | None]:
    """Return how each plan would go, by name; None without an estimate."""
    known: dict[str, Forecast | None] = {}
    found = {}
    for name, plan in plans.items():
        settings = {key: value for key, value in flatten(asdict(plan.config)).items() if key not in IMMATERIAL}
        key = repr((sorted(settings.items()), plan.machine.name, plan.machine.gpus, len(plan.machine.cores)))
        if key not in known:
            known[key] = foresee(plan)[1]
        found[name] = known[key]
    return found


def options(plan: Plan) -> Iterator[tuple[str, Forecast]]:
    """Yield what taking turns, MPS or its absence, other splits of the machine and one card more would give, by name;
    of a deterministic run, what one that is not would take; and, where the card was not measured, what slower and
    faster learning would.
    """
    machine, ranks = plan.machine, len(plan.placement.learners)
    others: dict[str, Plan] = {}
    if plan.config.run.deterministic:
        config = copy.deepcopy(plan.asked)
        config.run.deterministic, config.learner.max_staleness = False, LearnerConfig().max_staleness
        others["run.deterministic=false"] = plan_for(config, machine, plan.shape, ranks, plan.calibration)
    if plan.config.learner.max_staleness:
        config = copy.deepcopy(plan.asked)
        config.learner.max_staleness = 0
        others["learner.max_staleness=0"] = plan_for(config, machine, plan.shape, ranks, plan.calibration)
    if machine.gpus and not plan.calibration.of:
        reached = EFFICIENCY["cuda", CARD_DTYPE].learn
        for share in LEARN_RANGE:
            slower = replace(plan.calibration, learn=reached / share)
            others[f"learning at {share:.0%} of the rate"] = replace(plan, calibration=slower)
    if machine.gpus and plan.placement.shared:
        config = copy.deepcopy(plan.asked)
        config.run.mps = not config.run.mps
        name = f"run.mps={str(config.run.mps).lower()}"
        others[name] = plan_for(config, machine, plan.shape, ranks, replace(plan.calibration, together=None))
    most = most_ranks(machine.cores, machine.gpus, plan.config.rollout.actors) if machine.gpus else 0
    for number in (ranks - 1, ranks + 1):
        if 1 <= number <= most:
            others[f"learner.ranks={number}"] = plan_for(plan.asked, machine, plan.shape, number, plan.calibration)
    if machine.gpus:
        more = replace(machine, gpus=machine.gpus + 1)
        others[f"{more.gpus} × {machine.name}"] = make_plan(plan.asked, more, plan.calibration)
    for name, other in others.items():
        if other.estimate:
            yield name, forecast(other)


def scale(plan: Plan, machine: Machine, gpus: list[int]) -> Iterator[Forecast]:
    """Forecast the run on each number of cards: with its own batch, then with one that grows with the cards.

    Raises BadInput if there is no card, its rates are not known, or the run does not fit.
    """
    if gpus and not (machine.gpus and machine.rates):
        raise BadInput(f"simulate={gpus}: no card whose rates are known; name one, as device=A40")
    for count, grown in [(count, False) for count in gpus] + [(count, True) for count in gpus if count > 1]:
        config = copy.deepcopy(plan.asked)
        config.learner.problems_per_update *= count if grown else 1
        cores = tuple(range(len(machine.cores) * count))
        scaled = make_plan(config, replace(machine, gpus=count, cores=cores), plan.calibration)
        if not scaled.fits:
            raise BadInput(f"simulate={gpus}: on {count} × {machine.name}, {misfit(scaled)}; {advice(scaled)}")
        yield forecast(scaled)

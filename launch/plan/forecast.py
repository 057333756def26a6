"""How a plan would go, by simulation: the waits of rollouts and learner for each other included."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from actors.coordinator.budget import EVALUATION_SAFETY, MOST_EVALUATION
from actors.runtime.placement import most_ranks
from conf.errors import BadInput
from launch.plan.calibration import Calibration
from launch.plan.machine import Machine
from launch.plan.plan import Plan, advice, make_plan, misfit, plan_for
from launch.plan.simulation import Simulation, simulate

UPDATES, FEW = 12, 3
"""Looked at, and on many cards, where each is an average over many groups or engines already."""

MANY = 32
"""Cards."""

SETTLED = 2
"""Updates after which a run goes on as it always will, besides the `max_staleness` ones from groups that had time to
pile up before the first."""

WINDOWS = 3
"""Times `max_staleness` updates are looked at, at least: groups may come in bursts of so many batches."""

LEARNING = ("update", "canary", "sync", "checkpoint")
"""What the learner does for an update, in the ledger's words."""

BUSY = 0.8
"""Of the time: what works so much of it is the bottleneck; if nothing does, it is waits for each other."""


@dataclass(frozen=True)
class Forecast:
    """start_s: until the first group is asked for.

    Per update, seconds: of the whole, of any engine generating, of an engine generating in the mean, of the learner at
    work. staleness: versions a group lags behind, in the mean of each update's oldest. group_cpu_s: of this processor
    for a group, coordinator and models together.
    """

    start_s: float
    update_s: float
    generate_s: float
    engine_s: float
    learn_s: float
    staleness: float
    group_cpu_s: float = 0.0
    groups: int = 0

    @property
    def rollouts_idle(self) -> float:
        """Share of the time in which no engine generates."""
        return 1 - self.generate_s / self.update_s

    @property
    def learner_idle(self) -> float:
        return 1 - self.learner_busy

    @property
    def rollouts_busy(self) -> float:
        return self.engine_s / self.update_s

    @property
    def learner_busy(self) -> float:
        return self.learn_s / self.update_s

    @property
    def bottleneck(self) -> str:
        if max(self.rollouts_busy, self.learner_busy) < BUSY:
            return "waits"
        return "generation" if self.engine_s > self.learn_s else "learning"


def forecast(plan: Plan) -> Forecast:
    """From the middle of a run, without evaluations. The plan must have an estimate."""
    run, skipped = middle(plan)
    return replace(between(run.rows, skipped), group_cpu_s=run.cpu_s / max(run.groups, 1), groups=run.groups)


def _in_turns(plan: Plan) -> Plan:
    config = copy.deepcopy(plan.asked)
    config.learner.max_staleness = 0
    return plan_for(config, plan.machine, plan.shape, len(plan.placement.learners), plan.calibration)


def middle(plan: Plan) -> tuple[Simulation, int]:
    """A run without evaluations and with time enough, and how many of its updates belong to its beginning."""
    assert plan.costs is not None
    config = copy.deepcopy(plan.config)
    staleness = config.learner.max_staleness
    looked_at = max(FEW if plan.machine.gpus >= MANY else UPDATES, WINDOWS * staleness)
    skipped = staleness + SETTLED
    config.budget.hours, config.budget.minutes, config.budget.updates = 1e6, None, skipped + looked_at
    config.eval.problems = config.validation.every = 0
    return simulate(config, plan.costs, plan.workload, plan.placement, plan.at_once), skipped


def updates_in_budget(plan: Plan, forecast: Forecast) -> int:
    """That fit beside start-up, the first evaluation, what is held back for the last, and validations."""
    assert plan.estimate is not None
    budget, evaluate_s = plan.config.budget, plan.estimate.evaluate_s
    reserve = min(EVALUATION_SAFETY * evaluate_s, MOST_EVALUATION * budget.seconds)
    left = budget.seconds - forecast.start_s - evaluate_s - reserve
    updates = max(0, int(left / (forecast.update_s + _validation_s(plan, forecast))))
    return updates if budget.updates is None else min(updates, budget.updates)


def seconds_spent(plan: Plan, forecast: Forecast) -> float:
    """Of the budget."""
    assert plan.estimate is not None
    each = forecast.update_s + _validation_s(plan, forecast)
    asked = forecast.start_s + updates_in_budget(plan, forecast) * each + 2 * plan.estimate.evaluate_s
    return min(asked, plan.config.budget.seconds) if plan.config.budget.updates else plan.config.budget.seconds


def _validation_s(plan: Plan, forecast: Forecast) -> float:
    """Seconds of validation for an update."""
    assert plan.estimate is not None
    config, validation = plan.config, plan.config.validation
    if not validation.every or not config.eval.problems:
        return 0.0
    problems = min(validation.problems, config.eval.problems)
    each = plan.estimate.evaluate_s * problems / (config.eval.problems * config.eval.n)
    most = forecast.update_s * validation.share / (1 - validation.share) if validation.share < 1 else math.inf
    return min(each / validation.every, most)


@dataclass(frozen=True)
class Option:
    """Another way to do the same run."""

    name: str
    plan: Plan
    forecast: Forecast


def options(plan: Plan) -> Iterator[Option]:
    """What other splits of the machine, and one card more, would give."""
    machine, ranks = plan.machine, len(plan.placement.learners)
    others: list[tuple[str, Plan]] = []
    if plan.config.learner.max_staleness:
        others.append(("learner.max_staleness=0", _in_turns(plan)))
    most = most_ranks(machine.cores, machine.gpus, plan.config.rollout.actors) if machine.gpus else 0
    for number in (ranks - 1, ranks + 1):
        if 1 <= number <= most:
            named = f"learner.ranks={number}"
            others.append((named, plan_for(plan.asked, machine, plan.shape, number, plan.calibration)))
    if machine.gpus:
        more = replace(machine, gpus=machine.gpus + 1)
        others.append((f"{more.gpus} × {machine.name}", make_plan(plan.asked, more, plan.calibration)))
    for name, other in others:
        if other.estimate:
            yield Option(name, other, forecast(other))


@dataclass(frozen=True)
class Scaled:
    """A run on so many cards."""

    gpus: int
    plan: Plan
    forecast: Forecast

    @property
    def groups_per_s(self) -> float:
        return self.plan.config.learner.problems_per_update / self.forecast.update_s

    @property
    def load(self) -> float:
        """Of one core of this processor, at most."""
        return self.groups_per_s * self.forecast.group_cpu_s

    @property
    def bottleneck(self) -> str:
        return "coordinator" if self.load > BUSY else self.forecast.bottleneck


def scale(plan: Plan, machine: Machine, gpus: list[int], calibration: Calibration) -> Iterator[Scaled]:
    """The run on each number of cards: with its own batch, then with one that grows with the cards.

    Raises BadInput if there is no card, its rates are not known, or the run does not fit.
    """
    if gpus and not (machine.gpus and machine.rates):
        raise BadInput(f"simulate={gpus}: no card whose rates are known; name one, as device=A40")
    for grown in (False, True):
        for count in gpus:
            if grown and count == 1:
                continue
            config = copy.deepcopy(plan.asked)
            config.learner.problems_per_update *= count if grown else 1
            cores = tuple(range(len(machine.cores) * count))
            made = make_plan(config, replace(machine, gpus=count, cores=cores), calibration)
            if not made.fits:
                raise BadInput(f"simulate={gpus}: on {count} × {machine.name}, {misfit(made)}; {advice(made)}")
            yield Scaled(count, made, forecast(made))


def between(rows: Sequence[Mapping[str, float]], skipped: int) -> Forecast:
    """Of the rows of metrics but the first."""
    first, last, count = rows[skipped - 1], rows[-1], len(rows) - skipped

    def passed(*names: str) -> float:
        return sum(last.get(name, 0.0) - first.get(name, 0.0) for name in names) / count

    return Forecast(
        start_s=first["ledger/run/start"] + first["ledger/run/starting"],
        update_s=passed("budget/spent_s"),
        generate_s=passed("ledger/rollouts/generate"),
        engine_s=passed("engines/busy_s"),
        learn_s=passed(*(f"ledger/learner/{activity}" for activity in LEARNING)),
        staleness=sum(row["staleness/max"] for row in rows[skipped:]) / count,
    )

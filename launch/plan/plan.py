"""The plan of a run: placement, memory and time, computed from configuration and model shape."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product, starmap

from microbudget_rl.actors.coordinator.budget import cost_of
from microbudget_rl.actors.messages import ProblemSet
from microbudget_rl.actors.models.files import shape_of
from microbudget_rl.actors.models.sizes import answers_alone
from microbudget_rl.actors.runtime.placement import CUDA_CONTEXT, most_actors, place
from microbudget_rl.conf.catalogue import Benchmark
from microbudget_rl.conf.checks import check_lengths
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, DataConfig, ShapeConfig
from microbudget_rl.conf.schema.learner import MICROBATCH
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.plan.memory import Fit, Memory, memory_of
from microbudget_rl.launch.plan.time import UNMEASURED, Calibration, Estimate, Workload, assumed_workload, estimate
from microbudget_rl.launch.sharing import LEARNER_SPARE, divide, mps_choice, weights_choices
from microbudget_rl.rewards.problems.loading import count, split_problems

CACHE_MARGIN = 1.2
"""Size of a KV cache over that of samples of mean length. With less, vLLM would often drop a sample's cache and compute
it again."""

SHARING_MARGIN = 1.05
"""Factor by which updates have to be shorter before engines share the learner's GPUs although there are others, because
their mutual slowdown is a rough figure."""

LARGE_GPU = 10e9
"""Bytes of GPU memory from which an engine may decode more samples at once, if nothing says otherwise."""

ROOMY_GPU, MICROBATCHES = 40e9, (MICROBATCH, 2 * MICROBATCH, 4 * MICROBATCH)
"""Bytes of GPU memory from which a micro-batch may have more tokens, and the numbers of tokens. A fast GPU is done with
few tokens before the kernels for the next layer are launched."""

MORE_SAMPLES = 256
"""Samples decoded at once on a large GPU: each step reads all weights, so that twice as many take little more time."""

FILE = "file:"

Change = dict[str, object]
"""Settings by key."""


@dataclass(frozen=True)
class Problems:
    """Numbers of problems to train on, to report and to choose the result on.

    epoch: problems in a pass over all to train on, or in a mixture over its source that is used up first
    """

    train: int
    heldout: int
    selection: int
    epoch: float


@dataclass(frozen=True)
class Plan(Fit):
    """A run on a machine.

    config: the configuration with the plan's decisions instead of `auto`
    undecided: the configuration as it was given
    calibration: the corrections of predicted times
    problems: the numbers of problems; None if they were not counted
    benchmarks: `eval.benchmarks`, each with the number of problems to evaluate on
    """

    undecided: Config
    calibration: Calibration
    problems: Problems | None = None
    benchmarks: Sequence[Benchmark] = ()

    @cached_property
    def memory(self) -> list[Memory]:
        """The needs of each place, part by part."""
        return [entry for entry in memory_of(self) if entry.bytes]

    @property
    def updates(self) -> int | None:
        """Expected number of updates; None if it is unknown or nothing fits."""
        return self.estimate.updates if self.estimate and self.fits else None

    @property
    def passes(self) -> float:
        """Expected number of passes over the training problems, see `Problems`; 0 if it is unknown. Dynamic sampling
        makes more.
        """
        if not (self.problems and self.problems.epoch and self.updates):
            return 0.0
        return self.updates * self.config.learner.problems_per_update / self.problems.epoch

    @property
    def hours(self) -> float:
        """Expected duration with start and evaluations; the whole budget if it is unknown."""
        return (self.estimate.spent_s if self.estimate else self.config.budget.seconds) / 3600

    @property
    def cost(self) -> float | None:
        """Cost of these hours in the currency of budget.price_per_hour; None without a price or if nothing fits."""
        return cost_of(self.config.budget.price_per_hour, 3600 * self.hours) if self.fits else None

    @cached_property
    def sequences(self) -> int:
        """Samples of full length that the KV caches of all engines hold at once."""
        return sum(int(self.held(share, self.config.rollout.longest)) for share in self.placement.rollouts)

    @property
    def at_once(self) -> int:
        """Samples that an engine decodes at once, the mean of all engines. vLLM starts a sample while its KV cache has
        room for the present lengths, and computes a sample again if the cache becomes full.
        """
        rollout, alone = self.config.rollout, answers_alone(self.config, self.placement.device)
        most = min(rollout.concurrent_samples, rollout.samples_per_problem if alone else rollout.concurrent_samples)
        context, engines = self.workload.live_context, self.placement.rollouts
        room = (max(self.held(each, context) / CACHE_MARGIN, self.held(each, rollout.longest)) for each in engines)
        return max(1, sum(min(most, int(held)) for held in room) // len(engines))

    def divided(self) -> "Plan":
        """Return the plan with the free memory of a shared GPU divided by the needs of engine and learner."""
        if not self.machine.gpus:
            return self
        places = ("rollout GPU", "learner GPU", "weights GPU")
        tensors = (max(self.needed(gpu) - CUDA_CONTEXT, 0) for gpu in places)
        engine, learner, weights = (each / self.machine.gpu_memory for each in tensors)
        alone, room = (self.machine.room(number, self.placement.gpus) for number in (1, 2 + bool(weights)))
        return replace(self, placement=divide(self.placement, engine, learner, room, weights, alone))

    @property
    def tight(self) -> bool:
        """Whether less of the learner's GPU is spare than should be."""
        needed = self.needed("learner GPU")
        return needed + LEARNER_SPARE * (needed - CUDA_CONTEXT) > (self.available.get("learner GPU") or math.inf)

    @cached_property
    def workload(self) -> Workload:
        return self.calibration.workload or assumed_workload(self.config)

    @cached_property
    def estimate(self) -> Estimate | None:
        """Mean durations of the run; None for a GPU whose rates are not known, or if not one sample fits."""
        counts: Change = {}
        if problems := self.problems:
            counts = {"eval.problems": problems.heldout, "validation.problems": max(problems.selection, 1)}
        planned = self._estimate(counts) if self.sequences else None
        benchmarks = [self._estimate({"eval.problems": each.problems, "eval.n": each.n}) for each in self.benchmarks]
        return planned and replace(planned, benchmarks_s=sum(each.evaluate_s for each in benchmarks if each))

    def _estimate(self, settings: Change) -> Estimate | None:
        timed = replace(self, config=changed(self.config, settings))
        return estimate(timed, self.workload, self.at_once, self.calibration)

    def again(self, change: Change, machine: Machine | None = None) -> "Plan":
        """Plan the run with other settings or on another machine; all decisions are open."""
        plan = _plan(changed(self.undecided, change), machine or self.machine, self.shape, self.calibration)
        return replace(plan, problems=self.problems, benchmarks=self.benchmarks)


def make_plan(config: Config, machine: Machine, calibration: Calibration = UNMEASURED) -> Plan:
    """Plan a run with `learner.world_size` learner processes, or, if that is null, the number with the shortest update.

    Raises BadInput if the model's shape is neither declared nor readable, its context is too short for a sample, or
    the machine is too small for the learner processes.
    """
    shape = shape_of(config.model)
    check_lengths(config, shape.max_position_embeddings)
    benchmarks = [replace(each, problems=count(each, config, each.limit)) for each in config.eval.resolved_benchmarks]
    return replace(_plan(config, machine, shape, calibration), benchmarks=benchmarks)


def _plan(config: Config, machine: Machine, shape: ShapeConfig, calibration: Calibration) -> Plan:
    return _best(_plan_for(config, machine, shape, ranks, calibration) for ranks in possible_ranks(config, machine))


def _best(plans: Iterable[Plan]) -> Plan:
    """Return the plan that fits, without shared weights if one does, not tightly, with the shortest update, or else the
    most samples at once; if none fits, the one whose learner needs the least. The process that holds shared weights
    can fail, and uses private parts of vLLM.
    """

    def order(plan: Plan) -> tuple[float, bool, bool, float, int]:
        seconds = plan.estimate.update_s if plan.estimate else math.inf
        seconds *= SHARING_MARGIN**plan.placement.shared
        lacking = 0.0 if plan.fits else plan.needed("learner GPU") + 1.0
        return lacking, bool(plan.placement.weights), plan.tight, seconds, -plan.at_once

    return min(plans, key=order)


def possible_ranks(config: Config, machine: Machine) -> Sequence[int]:
    """Return the possible numbers of learner processes, smallest first. Raises BadInput for more actors than fit."""
    ranks, most = config.learner.world_size, most_actors(machine.cores, machine.gpus)
    for key, asked in (("rollout.actors", config.rollout.actors), ("learner.world_size", ranks)):
        if asked is not None and asked > most:
            needs = f"at most one per {'GPU' if machine.gpus else 'core'}"
            raise BadInput(
                f"{key}={asked}: too many for {machine.described}: {needs}; use at most {most}, or leave it out"
            )
    if ranks is not None:
        return (ranks,)
    return range(1, most + 1) if machine.gpus else (1,)


def _plan_for(config: Config, machine: Machine, shape: ShapeConfig, ranks: int, calibration: Calibration) -> Plan:
    """Plan a run with so many learner processes, and the best choice of all that the settings leave open."""
    engines, checkpointing = [config.rollout.actors], [config.learner.gradient_checkpointing]
    if machine.gpus and engines == [None]:
        engines = [number for number in (machine.gpus - ranks, machine.gpus) if number]
    if checkpointing == ["auto"]:
        checkpointing = ["off", "on"] if machine.gpus else ["off"]
    grows = config.learner.tokens_per_microbatch is None and machine.gpu_memory >= ROOMY_GPU
    tokens = MICROBATCHES if grows else (config.learner.microbatch,)

    def decide(shared_weights: str, engines: int | None, checkpointing: str, microbatch: int, samples: int) -> Plan:
        placement = place(machine.cores, machine.gpus, ranks, engines, machine.nodes)
        if config.reward.workers is not None:
            placement = replace(placement, reward_workers=config.reward.workers)
        settings: Change = {
            "learner.gradient_checkpointing": checkpointing,
            "learner.tokens_per_microbatch": microbatch,
            "model.shared_weights": shared_weights,
            "run.nvidia_mps": mps_choice(config, machine, placement),
            "rollout.max_concurrent_samples": samples,
        }
        return Plan(changed(config, settings), machine, placement, shape, config, calibration).divided()

    weights, samples = weights_choices(config, machine, shape), possible_samples(config, machine)
    return _best(starmap(decide, product(weights, engines, checkpointing, tokens, samples)))


def possible_samples(config: Config, machine: Machine) -> list[int]:
    """Return the possible numbers of samples that an engine decodes at once, smallest first."""
    more = machine.gpu_memory >= LARGE_GPU and config.rollout.max_concurrent_samples is None
    return [config.rollout.concurrent_samples, *([MORE_SAMPLES] if more else [])]


def count_problems(config: Config) -> Problems | None:
    """Count the problems of files as a run does, BadInput included; None for sources that take time or a network."""
    data = config.data
    if not all(each.source.startswith(FILE) for each in data.by_source.values()):
        return None
    unread = config.eval.problems if data.eval_source and not data.eval_source.startswith(FILE) else 0
    read = changed(config, {"eval.benchmarks": [], **({"eval.problems": 0} if unread else {})})
    counts = numbers(split_problems(read, None)[0], data)
    return replace(counts, heldout=unread, selection=config.validation_problems) if unread else counts


def numbers(problems: ProblemSet, data: DataConfig) -> Problems:
    """Return the numbers of a run's problems."""
    sizes, weights = Counter(problem.source for problem in problems.train), data.weights
    epoch = min(sizes[name] * sum(weights.values()) / weight for name, weight in weights.items())
    return Problems(len(problems.train), len(problems.heldout), len(problems.selection), epoch)

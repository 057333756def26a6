"""The learner: a frozen base model, a LoRA adapter, and one batch at a time."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import fmean
from time import perf_counter

import torch
from torch import Tensor

from microbudget_rl.actors.messages import (
    AdapterRef,
    Batch,
    Group,
    Inspection,
    Measured,
    Scores,
    UpdateStats,
    request_seed,
)
from microbudget_rl.actors.models.sizes import SYNTHETIC_ADAPTERS
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.conf.schema import Config
from microbudget_rl.learner.distributed import ALONE, World
from microbudget_rl.learner.examples import Example, examples, observe, tokens_of
from microbudget_rl.learner.losses import Observed, Totals, imitation_loss, policy_loss
from microbudget_rl.learner.metrics import UpdateRecord, update_metrics
from microbudget_rl.learner.mismatch import k3
from microbudget_rl.learner.model.adapter import (
    adapter_norms,
    adapter_weights,
    effective_ranks,
    load_model,
    modules_by_kind,
    noise,
    scaled,
    write_adapter,
)
from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.optimizer import ZeroOptimizer
from microbudget_rl.learner.packing import MicroBatch, Tokens, divide, pack
from microbudget_rl.learner.training_state import read_checkpoint, write_checkpoint

REFERENCE = "reference."
"""Beginning of the names of the reference's weights in a checkpoint."""


class StaleBatch(Exception):
    """A batch that the staleness bound or the adapter's history forbids."""


@dataclass
class Accumulated:
    """The samples of an update between their packing and the last optimizer step.

    name: of the update, for messages; groups: those of its batch, none in the warm start
    examples: the samples with a gradient; local_examples: those of this process
    parts: the micro-batches of `local_examples`; observed: one entry per part, set by the first pass
    reference: log-probabilities of `local_examples` under the reference; empty without a KL term
    loss: this process's part of the latest pass's loss; fault: names a value in it that is not finite, else empty
    seconds: duration of the first pass
    """

    name: str
    groups: tuple[Group, ...]
    examples: list[Example]
    local_examples: list[Example]
    totals: Totals
    parts: list[MicroBatch]
    record: UpdateRecord
    reference: list[tuple[float, ...]] = field(default_factory=list)
    observed: list[Observed] = field(default_factory=list)
    loss: float = 0.0
    fault: str = ""
    seconds: float = 0.0


class LoraLearner:
    """Owns the trainable weights and learns from one batch at a time: `accumulate`, then `step`.

    It begins as the base model, because B starts at zero, or as the adapter `lora.start_from`. Version 0 is that, or
    what a warm start makes of it. Each version is published as a folder in `adapters_folder` with the name
    `AdapterRef.name`. With several processes, each has all the weights, computes its part of a batch and returns the
    result of the whole batch; the first writes files. All get the same calls in the same order, except that any may
    answer `score`, `explain` and `inspect` alone.
    """

    def __init__(
        self,
        config: Config,
        model_path: str,
        adapters_folder: str | Path,
        device: str = "cpu",
        world: World = ALONE,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """weights: the base model in vLLM's layout, which another process holds; None to load the model."""
        self.config = config
        self.version = 0
        self.incarnation = 0
        self._steps = 0
        self._accumulated: Accumulated | None = None
        self._world = world
        self._adapters = Path(adapters_folder)
        self._device = torch.device(device)
        self.model = load_model(config, model_path, self._device, begins=world.leads, weights=weights)
        self.policy = Policy(
            self.model,
            config.rollout.temperature,
            config.learner.logprob_chunk,
            entropy_gradient=config.algorithm.entropy > 0,
            checkpointing=config.learner.recomputes,
            fused=config.learner.fused_kernels,
        )
        self._optimizer = ZeroOptimizer(self.policy, getattr(torch, config.model.dtype), config.learner, world)
        self.policy.reference = adapter_weights(self.model) if config.keeps_start else {}

    def publish(self) -> AdapterRef:
        """Write the current version as a PEFT adapter and return its reference. A restart does not need the files.

        After a warm start, its weights become the policy's reference, unless that is the base model.
        """
        if self.version == 0 and self._steps:
            if self.policy.reference:
                self.policy.reference = adapter_weights(self.model)
            self._optimizer.begin_anew()
            self._steps = 0
        adapter = self._located(AdapterRef(self.version, self.incarnation, ""))
        if self._world.leads:
            write_adapter(self.model, Path(adapter.path), durable=False)
        return adapter

    def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        """Write the synthetic adapters of the check at start; the policy is unchanged."""
        numbers = range(1, SYNTHETIC_ADAPTERS + 1)
        adapters = tuple(self._located(AdapterRef(number, 0, "", synthetic=True)) for number in numbers)
        for adapter in adapters:
            with noise(self.model, adapter.version, SYNTHETIC_ADAPTERS):
                write_adapter(self.model, Path(adapter.path), durable=False)
        return adapters

    def imitate(self, groups: tuple[Group, ...], progress: float) -> tuple[float, str]:
        """Take one optimizer step of the warm start, at a learning rate that falls linearly to zero."""
        names = (f"problem {group.problem.id}" for group in groups for _ in group.samples)
        demonstrations = [Example(name, tokens, (), 1.0) for name, tokens in zip(names, _tokens(groups), strict=True)]
        work = self._begin(f"step {self._steps + 1} of the warm start", demonstrations)
        self._pass(work)
        fault = self._take_steps(work, self.config.warm_start.learning_rate * (1.0 - progress), 1)
        return math.nan if fault else work.record.losses[0], fault

    def accumulate(self, batch: Batch) -> Measured:
        """Compute the gradient of a batch's first step; the weights are unchanged, so `score` still uses this version.

        Samples without a gradient are not computed but count in the denominators. Raises StaleBatch.
        """
        self._check_staleness(batch)
        if self._accumulated:
            self._optimizer.discard()
        started = perf_counter()
        trained = examples(batch.groups, self.config.algorithm.regularised)
        work = self._accumulated = self._begin(f"update {self.version + 1}", trained, batch.groups)
        if self.config.algorithm.kl:
            with self.policy.as_reference():
                work.reference = self._logprobs([example.tokens for example in work.local_examples])
        self._pass(work)
        work.seconds = perf_counter() - started
        return self._measured(work)

    def step(self, rate: float) -> UpdateStats:
        """Take all optimizer steps of the accumulated batch at a learning rate, and publish the next version.

        A batch without a gradient makes a new version with the same weights and momentum; so does a step whose loss or
        gradient is not finite, which the result's `fault` names.
        """
        if self._accumulated is None:
            raise RuntimeError("no batch was accumulated")
        started = perf_counter()
        work, self._accumulated = self._accumulated, None
        fault = self._take_steps(work, rate, self.config.algorithm.steps_per_batch)
        records, peaks = zip(*self._world.gather((work.record, _peak_memory(self._device))), strict=True)
        metrics = update_metrics(self.config.algorithm, records)
        tokens = self.config.algorithm.steps_per_batch * sum(record.counts["tokens"] for record in records)
        self.version += 1
        learned = perf_counter()
        adapter = self.publish()
        metrics |= {
            "staleness/max": float(max(self.version - 1 - group.version for group in work.groups)),
            "learner/peak_memory": max(peaks),
            "learner/tokens_per_second": tokens / (work.seconds + learned - started),
            "time/publish": perf_counter() - learned,
            **{f"adapter/norm/{name}": norm for name, norm in adapter_norms(self.model).items()},
        }
        return UpdateStats(adapter, {k: value for k, value in metrics.items() if math.isfinite(value)}, fault)

    def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        """Return the log-probabilities of given responses at the rollouts' temperature, by group and sample."""
        samples = _tokens(groups)
        policy = self._logprobs(samples)
        with self.model.disable_adapter():
            base = self._logprobs(samples)
        with self.policy.as_reference():
            reference = self._logprobs(samples) if self.policy.reference else [()] * len(samples)
        scores = map(Scores, policy, base, reference)
        return tuple(tuple(next(scores) for _ in group.samples) for group in groups)

    def explain(self, groups: tuple[Group, ...], mistakes: bool = True) -> dict[str, tuple[float, ...]]:
        """See `actors.protocols.Learner`. The groups belong to one synthetic adapter; the policy is unchanged."""
        lora, samples, kinds = self.config.lora, _tokens(groups), modules_by_kind(self.model)
        modules = [*chain(*kinds.values())]  # an engine may lack one in all kinds of layers, too
        kinds |= {target: [name for name in modules if name.endswith(f".{target}")] for target in lora.target_modules}
        assert groups[0].adapter is not None
        number = groups[0].adapter.version
        possible = {
            "no adapter is applied": self.model.disable_adapter(),
            "alpha is doubled": scaled(self.model, 2.0),
            "alpha is halved": scaled(self.model, 0.5),
            "rslora is confused": scaled(self.model, lora.rank ** (-0.5 if lora.rslora else 0.5)),
            **{f"{kind} has no adapter": scaled(self.model, 0.0, names) for kind, names in kinds.items()},
        }

        def logprobs() -> tuple[float, ...]:
            return tuple(chain.from_iterable(self._logprobs(samples)))

        with noise(self.model, number, SYNTHETIC_ADAPTERS):
            views = {FAITHFUL: logprobs()}
            if not mistakes:
                return views
            for mistake, made in possible.items():
                with made:
                    views[mistake] = logprobs()
        with noise(self.model, SYNTHETIC_ADAPTERS + 1 - number, SYNTHETIC_ADAPTERS):
            views["another adapter is applied"] = logprobs()
        return views

    def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        """Compare the current version with the reference on given responses; all tokens have equal weight."""
        self.policy.eval()
        parts = self._pack(_tokens(groups))
        figures = zip(*(self.policy.against_reference(part.to(self._device)) for part in parts), strict=True)
        entropy, base_entropy, kl = (torch.cat(column).mean().item() for column in figures)
        ranks = effective_ranks(self.model)
        return Inspection(self.version, entropy, base_entropy, kl, adapter_norms(self.model), ranks)

    def save(self, folder: str | Path) -> None:
        """Write everything a restore needs into an existing folder, with the adapter in `adapter/`."""
        state = self._optimizer.state()
        state |= {f"{REFERENCE}{name}": weight.float() for name, weight in self.policy.reference.items()}
        if self._world.leads:
            write_checkpoint(Path(folder), self.config, self.version, self._steps, state)
            write_adapter(self.model, Path(folder) / "adapter", durable=True)

    def restore(self, folder: str | Path | None, incarnation: int) -> None:
        """Continue bit for bit from a saved checkpoint, or at version 0 if folder is None. Raises BadInput."""
        if folder is not None:
            shapes = {f"{REFERENCE}{name}": weight.shape for name, weight in self.policy.reference.items()}
            shapes |= self._optimizer.shapes
            self.version, self._steps, state = read_checkpoint(Path(folder), self.config, shapes, self._world)
            self._optimizer.set_state(state, self._steps)
            for name, weight in self.policy.reference.items():
                weight.copy_(self._world.spread(state.get(f"{REFERENCE}{name}"), self.model.get_parameter(name).data))
            self._accumulated = None
        elif self.version or self._steps:
            raise RuntimeError(f"a learner at version {self.version} cannot go back to the start")
        self.incarnation = incarnation

    def _located(self, adapter: AdapterRef) -> AdapterRef:
        return replace(adapter, path=str(self._adapters / adapter.name))

    def _check_staleness(self, batch: Batch) -> None:
        if batch.version != self.version:
            raise StaleBatch(f"a batch for version {batch.version} reached the learner at version {self.version}")
        for group in batch.groups:
            if group.adapter is None or group.adapter.incarnation != self.incarnation:
                raise StaleBatch(f"group {group.index} is from an abandoned history: it was sampled by {group.adapter}")
            limit = self.config.learner.max_staleness
            if not 0 <= batch.version - group.version <= limit:
                raise StaleBatch(
                    f"group {group.index} was sampled by version {group.version} and may not improve version "
                    f"{batch.version}: max_staleness is {limit}"
                )

    def _begin(self, name: str, trained: list[Example], groups: tuple[Group, ...] = ()) -> Accumulated:
        """Pack this process's part of the examples; seed dropout, to repeat after a restore and differ by process."""
        positions = divide([example.tokens for example in trained], self._world.size)[self._world.rank]
        local_examples = [trained[position] for position in positions]
        parts = self._pack([example.tokens for example in local_examples])
        samples = _tokens(groups) or [example.tokens for example in trained]
        tokens = sum(len(sample.sampled) for sample in samples)
        totals = Totals(len(samples), tokens, self.config.rollout.max_response_tokens)
        process, number = f"dropout-{self._world.rank}", self.version or self._steps
        torch.manual_seed(request_seed(self.config.run.seed, process, number))
        return Accumulated(name, groups, trained, local_examples, totals, parts, UpdateRecord(parts))

    def _pass(self, work: Accumulated) -> None:
        """Run forward and backward over this process's micro-batches; stop at one that is not finite."""
        work.loss = 0.0
        self.policy.train()
        if not work.parts:
            self._optimizer.backward_nothing()
        for number, part in enumerate(part.to(self._device) for part in work.parts):
            loss = self._loss(work, number, *self._optimizer.forward(part))
            work.loss += loss.item()
            if not math.isfinite(work.loss):
                names = _names(work.local_examples[i] for i in part.samples)
                work.fault = f"the loss of {work.name} is {loss.item()}, from {names}"
                self._optimizer.backward(loss * math.nan)  # the step will find it, and clear all gradients
                return
            self._optimizer.backward(loss)

    def _loss(self, work: Accumulated, number: int, logprobs: Tensor, entropy: Tensor) -> Tensor:
        """Return a micro-batch's part of the loss. A batch's first pass sets `observed`, fixed in all later ones."""
        if not work.groups:
            return imitation_loss(logprobs, work.totals)
        algorithm = self.config.algorithm
        if number == len(work.observed):
            samples = work.parts[number].samples
            members = [work.local_examples[i] for i in samples]
            reference = [work.reference[i] for i in samples if work.reference]
            work.observed.append(observe(algorithm, members, logprobs.detach(), reference))
            work.record.add_before(logprobs, entropy, work.observed[number])
        work.record.add_clipped(algorithm, logprobs, work.observed[number])
        return policy_loss(algorithm, work.totals, logprobs, entropy, work.observed[number])

    def _take_steps(self, work: Accumulated, rate: float, count: int) -> str:
        """Take the optimizer steps of an update whose first pass is done; return a fault, or ""."""
        for number in range(count if work.examples else 0):
            if number:
                self._pass(work)
            norm = self._optimizer.step(rate)
            losses, faults = zip(*self._world.gather((work.loss, work.fault)), strict=True)
            if fault := next(filter(None, faults), ""):
                return fault
            if not math.isfinite(norm):
                return f"the gradient of {work.name} is not finite, from {_names(work.examples)}"
            self._steps += 1
            work.record.losses.append(sum(losses))
            work.record.norms.append(norm)
        return ""

    def _measured(self, work: Accumulated) -> Measured:
        """Return what the first pass has shown; all processes return the same."""
        engine, policy = (
            torch.cat([torch.empty(0), *work.record.columns.get(name, ())]) for name in ("engine", "policy")
        )
        sums, counts = zip(*self._world.gather((k3(engine, policy).sum().item(), len(policy))), strict=True)
        if not (tokens := sum(counts)):
            return Measured(len(work.examples))
        versions = [example.version for example in work.examples if example.advantage for _ in example.engine]
        return Measured(len(work.examples), sum(sums) / tokens, self.version - fmean(versions))

    @torch.no_grad()
    def _logprobs(self, samples: list[Tokens]) -> list[tuple[float, ...]]:
        self.policy.eval()
        results: list[tuple[float, ...]] = [()] * len(samples)
        for part in self._pack(samples):
            logprobs, _ = self.policy(part.to(self._device))
            pieces = logprobs.split([len(samples[i].sampled) for i in part.samples])
            for i, piece in zip(part.samples, pieces, strict=True):
                results[i] = tuple(piece.tolist())
        return results

    def _pack(self, samples: list[Tokens]) -> list[MicroBatch]:
        return pack(samples, self.config.learner.microbatch, whole=self.policy.mixes)


def _tokens(groups: Iterable[Group]) -> list[Tokens]:
    return [tokens_of(group, sample) for group in groups for sample in group.samples]


def _names(examples: Iterable[Example]) -> str:
    return ", ".join(example.name for example in examples)


def _peak_memory(device: torch.device) -> float:
    """Return the peak bytes of this process's tensors on the GPU, or of the whole process on the CPU."""
    if device.type == "cpu":
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024.0
    return float(torch.cuda.max_memory_allocated(device))

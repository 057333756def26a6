"""The learner: a frozen base model, a LoRA adapter, and one batch at a time."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from actors.messages import AdapterRef, Batch, Group, Inspection, Scores, UpdateStats
from actors.protocols import FAITHFUL
from actors.seeds import request_seed
from conf.models import shape_from_config
from conf.schema import Config
from conf.sizes import ADAPTER_SLOTS, offloads, recomputes
from learner.batching import MicroBatch, Tokens, pack
from learner.checkpoint import Facts, expected_facts, read_checkpoint, write_checkpoint
from learner.distributed import ALONE, Ranks
from learner.examples import Example, examples, totals
from learner.losses import Observed, Totals, policy_loss
from learner.metrics import Tally
from learner.model.adapter import adapter_norms, effective_ranks, load_adapter, noise, scaled, write_adapter
from learner.model.policy import Policy
from learner.model.projection import Projection
from learner.optimizer import ZeroOptimizer
from learner.schedule import learning_rate
from learner.shares import share_out


class StaleBatch(Exception):
    """A batch that the staleness bound or the adapter's history forbids to learn from."""


@dataclass
class Work:
    """A batch on its way through its passes: all samples with a gradient, those that are this rank's, their
    micro-batches and, parallel to these, their base model's log-probabilities (None without a KL term) and fixed parts.
    loss: this rank's part of the latest pass's. seconds: of the first one.
    """

    batch: Batch
    members: list[Example]
    own: list[Example]
    sizes: Totals
    parts: list[MicroBatch]
    bases: Sequence[Tensor | None]
    tally: Tally
    seen: list[Observed] = field(default_factory=list)
    loss: float = 0.0
    fault: str = ""
    seconds: float = 0.0


class LoraLearner:
    """Owns the trainable weights. Version 0 is the base model, since B starts at zero, or `lora.start_from`.

    Adapters are published as folders of `adapters_folder` named like `AdapterRef.name`. Of several ranks each is a
    learner in a process of its own, with all the weights: they get the same calls in the same order, but for `score`
    and `inspect`, which any may answer alone. Each computes its share of a batch, returns what the whole of it gave,
    and the first writes.
    """

    def __init__(
        self,
        config: Config,
        model_path: str,
        adapters_folder: str | Path,
        device: str = "cpu",
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.version = 0
        self.incarnation = 0
        self._steps = 0
        self._work: Work | None = None
        self._ranks = ranks
        self._adapters = Path(adapters_folder)
        self._device = torch.device(device)
        dtype = getattr(torch, config.model.dtype)
        disable_progress_bar()
        base = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, attn_implementation="sdpa")
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            use_rslora=config.lora.rslora,
            lora_dropout=config.lora.dropout,
            target_modules=list(config.lora.target_modules),
        )
        lora._register_custom_module({nn.Linear: Projection})
        torch.manual_seed(config.run.seed)
        self.model = get_peft_model(base, lora, autocast_adapter_dtype=False)
        if config.lora.start_from:
            load_adapter(self.model, Path(config.lora.start_from))
        shape, room = shape_from_config(model_path), _room(self._device)
        self.policy = Policy(
            self.model.to(self._device),
            config.rollout.temperature,
            config.learner.logprob_chunk,
            entropy_gradient=config.algorithm.entropy > 0,
            checkpointing=recomputes(config, shape, room),
        )
        offload = offloads(config, shape, room * ranks.size)
        self._optimizer = ZeroOptimizer(self.policy, dtype, config.learner, offload, ranks)

    def publish(self) -> AdapterRef:
        """Write the current version under its name."""
        name = AdapterRef(self.version, self.incarnation, "").name
        if self._ranks.leads:
            write_adapter(self.model, self._adapters / name)
        return AdapterRef(self.version, self.incarnation, str(self._adapters / name))

    def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        """Write as many adapters of noise as an engine serves at once; the policy stays as it is."""
        adapters = []
        for version in range(-1, -ADAPTER_SLOTS - 1, -1):
            name = AdapterRef(version, 0, "").name
            with noise(self.model, -version, ADAPTER_SLOTS):
                write_adapter(self.model, self._adapters / name)
            adapters.append(AdapterRef(version, 0, str(self._adapters / name)))
        return tuple(adapters)

    def accumulate(self, batch: Batch) -> None:
        """The gradient of a batch's first step; the weights stay, so `score` still speaks of this version.

        Samples without a gradient are not computed, but count in the denominators. Raises StaleBatch.
        """
        self._check_ages(batch)
        if self._work:
            self._optimizer.discard()
        started = perf_counter()
        algorithm, ranks = self.config.algorithm, self._ranks
        members = list(examples(batch.groups, algorithm))
        own = [members[i] for i in share_out([member.tokens for member in members], ranks.size)[ranks.rank]]
        parts = self._pack([member.tokens for member in own])
        # Dropout repeats after a restore, and differs between ranks.
        torch.manual_seed(request_seed(self.config.run.seed, f"dropout-{ranks.rank}", self.version))
        self._work = Work(
            batch=batch,
            members=members,
            own=own,
            sizes=totals(batch.groups, self.config.rollout.max_response_tokens),
            parts=parts,
            bases=self._base(parts) if algorithm.kl else [None] * len(parts),
            tally=Tally(algorithm, parts),
        )
        self._pass(self._work)
        self._work.seconds = perf_counter() - started

    def step(self, progress: float) -> UpdateStats:
        """All optimizer steps of the accumulated batch, and the next version published.

        Metrics other than `staleness/max` describe the samples that have a gradient. A batch without any makes a new
        version with the same weights, momentum included; so does a step whose loss or gradient is not finite, named in
        the result's `fault`.
        """
        if self._work is None:
            raise RuntimeError("no batch was accumulated")
        started = perf_counter()
        algorithm, work = self.config.algorithm, self._work
        rate = learning_rate(self.config.learner, self.version, progress)
        fault = ""
        for number in range(algorithm.steps_per_batch if work.members else 0):
            if number:
                self._pass(work)
            norm = self._optimizer.step(rate)
            losses, faults = zip(*self._ranks.gather((work.loss, work.fault)), strict=True)
            fault = next(filter(None, faults), "")
            if not fault and not math.isfinite(norm):
                fault = f"the gradient of update {self.version + 1} is not finite, from {_names(work.members)}"
            if fault:
                break
            self._steps += 1
            work.tally.step(sum(losses), norm)
        tallies, peaks = zip(*self._ranks.gather((work.tally, _peak_memory(self._device))), strict=True)
        metrics = Tally.joined(tallies).metrics()
        self._work = None
        self.version += 1
        learned = perf_counter()
        adapter = self.publish()
        metrics |= {
            "learning_rate": rate,
            "staleness/max": float(max(work.batch.version - group.version for group in work.batch.groups)),
            "learner/skipped": float(bool(fault)),
            "learner/peak_memory": max(peaks),
            "learner/tokens_per_second": algorithm.steps_per_batch
            * metrics.pop("tokens")
            / (work.seconds + learned - started),
            "time/publish": perf_counter() - learned,
            **{f"adapter/norm/{name}": norm for name, norm in adapter_norms(self.model).items()},
        }
        return UpdateStats(adapter, {k: value for k, value in metrics.items() if math.isfinite(value)}, fault)

    def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        """Log-probabilities of given responses at the rollouts' temperature, by group and sample."""
        samples = [Tokens(group.problem.prompt_ids, s.token_ids) for group in groups for s in group.samples]
        policy = self._logprobs(samples)
        with self.model.disable_adapter():
            base = self._logprobs(samples)
        scores = map(Scores, policy, base)
        return tuple(tuple(next(scores) for _ in group.samples) for group in groups)

    def explain(self, groups: tuple[Group, ...]) -> dict[str, tuple[float, ...]]:
        """See `actors.protocols.Learner`; the groups are of one synthetic adapter. The policy stays as it is."""
        samples = [Tokens(group.problem.prompt_ids, s.token_ids) for group in groups for s in group.samples]
        drawn_by = groups[0].adapter
        assert drawn_by is not None

        def seen() -> tuple[float, ...]:
            return tuple(chain.from_iterable(self._logprobs(samples)))

        root = self.config.lora.rank**0.5
        scales = {
            "alpha is doubled": 2.0,
            "alpha is halved": 0.5,
            "rslora is confused": 1 / root if self.config.lora.rslora else root,
        }
        with noise(self.model, -drawn_by.version, ADAPTER_SLOTS):
            found = {FAITHFUL: seen()}
            with self.model.disable_adapter():
                found["no adapter is applied"] = seen()
            for mistake, factor in scales.items():
                with scaled(self.model, factor):
                    found[mistake] = seen()
            for kind in self.config.lora.target_modules:
                with scaled(self.model, 0.0, kind):
                    found[f"{kind} has no adapter"] = seen()
        with noise(self.model, ADAPTER_SLOTS + 1 + drawn_by.version, ADAPTER_SLOTS):
            found["another adapter is applied"] = seen()
        return found

    def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        """The current version on given responses, each token's figures weighing the same."""
        self.policy.eval()
        parts = self._pack([Tokens(group.problem.prompt_ids, s.token_ids) for group in groups for s in group.samples])
        figures = zip(*(self.policy.against_base(part.to(self._device)) for part in parts), strict=True)
        entropy, base_entropy, kl = (torch.cat(column).mean().item() for column in figures)
        ranks = effective_ranks(self.model)
        return Inspection(self.version, entropy, base_entropy, kl, adapter_norms(self.model), ranks)

    def save(self, folder: str | Path) -> None:
        """Write everything a restore needs into an existing folder, and the adapter into its `adapter/`."""
        state = self._optimizer.state()
        if self._ranks.leads:
            write_checkpoint(Path(folder), self._facts(), state)
            write_adapter(self.model, Path(folder) / "adapter")

    def restore(self, folder: str | Path | None, incarnation: int) -> None:
        """Continue from what `save` wrote, bit for bit; raises BadInput if it is damaged or of another run.

        For None a fresh learner only takes the incarnation.
        """
        if folder is None:
            if self.version:
                raise RuntimeError(f"a learner at version {self.version} cannot go back to the start")
            self.incarnation = incarnation
            return
        facts, state = read_checkpoint(Path(folder), self._facts(), self._optimizer.shapes())
        self._optimizer.set_state(state, facts.steps)
        self._work = None
        self.version, self._steps, self.incarnation = facts.version, facts.steps, incarnation

    def _facts(self) -> Facts:
        return expected_facts(self.config, self.version, self._steps)

    def _check_ages(self, batch: Batch) -> None:
        if batch.version != self.version:
            raise StaleBatch(f"a batch for version {batch.version} reached the learner at version {self.version}")
        for group in batch.groups:
            if group.adapter is None or group.adapter.incarnation != self.incarnation:
                raise StaleBatch(
                    f"group {group.index} belongs to an abandoned history: it was drawn by {group.adapter}"
                )
            age = batch.version - group.version
            if not 0 <= age <= self.config.learner.max_staleness:
                raise StaleBatch(
                    f"group {group.index} was drawn by version {group.version} and may not improve version "
                    f"{batch.version}: max_staleness is {self.config.learner.max_staleness}"
                )

    def _pass(self, work: Work) -> None:
        """Forward and backward of every micro-batch of this rank; what is not finite ends it and is the work's fault.

        "Old" log-probabilities are those of the first pass itself, or the engine's.
        """
        self.policy.train()
        first, work.loss = not work.seen, 0.0
        if not work.parts:
            self._optimizer.pass_by()
        for number, part in enumerate(work.parts):
            members = [work.own[i] for i in part.samples]
            logprobs, entropy = self._optimizer.engine(part.to(self._device))
            if first:
                work.seen.append(self._observe(members, logprobs.detach(), work.bases[number]))
                work.tally.start(logprobs, entropy, work.seen[number])
            work.tally.look(logprobs, work.seen[number])
            loss = policy_loss(self.config.algorithm, work.sizes, logprobs, entropy, work.seen[number])
            work.loss += loss.item()
            if not math.isfinite(work.loss):
                work.fault = f"the loss of update {self.version + 1} is {loss.item()}, from {_names(members)}"
                self._optimizer.backward(loss * math.nan)  # the step will find it, and clear all gradients
                return
            self._optimizer.backward(loss)

    def _observe(self, members: list[Example], logprobs: Tensor, base: Tensor | None) -> Observed:
        """A micro-batch's fixed part; logprobs: float [t], the policy's before the first step."""
        lengths = torch.tensor([len(member.engine) for member in members])
        advantages = torch.tensor([member.advantage for member in members]).repeat_interleave(lengths)
        engine = torch.tensor([value for member in members for value in member.engine]).to(logprobs)
        old = engine if self.config.algorithm.mismatch == "bypass" else logprobs
        return Observed(engine, old, advantages.to(logprobs), lengths.to(self._device), base)

    @torch.no_grad()
    def _base(self, parts: list[MicroBatch]) -> list[Tensor]:
        """Log-probabilities of each micro-batch under the model without its adapter, float [t] each."""
        self.policy.eval()
        with self.model.disable_adapter():
            logprobs = [self.policy(part.to(self._device))[0] for part in parts]
        self.policy.train()
        return logprobs

    @torch.no_grad()
    def _logprobs(self, samples: list[Tokens]) -> list[tuple[float, ...]]:
        self.policy.eval()
        results: list[tuple[float, ...]] = [()] * len(samples)
        for part in self._pack(samples):
            logprobs, _ = self.policy(part.to(self._device))
            pieces = logprobs.split([len(samples[i].response) for i in part.samples])
            for i, piece in zip(part.samples, pieces, strict=True):
                results[i] = tuple(piece.tolist())
        return results

    def _pack(self, samples: list[Tokens]) -> list[MicroBatch]:
        return pack(samples, self.config.learner.tokens_per_microbatch)


def _names(examples: Iterable[Example]) -> str:
    return ", ".join(example.name for example in examples)


def _room(device: torch.device) -> float:
    """Bytes of a card that this process may use; 0 on the CPU."""
    if device.type == "cpu":
        return 0.0
    return torch.cuda.get_per_process_memory_fraction() * torch.cuda.get_device_properties(device).total_memory


def _peak_memory(device: torch.device) -> float:
    """Bytes: the most this process's tensors took of the card since it began, on the CPU the most the process took."""
    if device.type == "cpu":
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024.0
    return float(torch.cuda.max_memory_allocated(device))

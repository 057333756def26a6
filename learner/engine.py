"""The learner: a frozen base model, a LoRA adapter, and one GRPO step at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from actors.messages import AdapterRef, Batch, Group, Scores, UpdateStats
from conf.schema import Config
from learner.adapter import write_adapter
from learner.advantages import group_advantages
from learner.checkpoint import Facts, read_checkpoint, write_checkpoint
from learner.losses import mismatch, policy_loss
from learner.microbatches import MicroBatch, Tokens, pack
from learner.policy import Policy
from learner.schedule import learning_rate
from learner.zero import ZeroOptimizer


class StaleBatch(Exception):
    """A batch that the staleness bound or the adapter's history forbids to learn from."""


class Diverged(Exception):
    """A loss or gradient that is not a finite number."""


@dataclass(frozen=True)
class Example:
    """A sample to learn from. name: for people, "group 12 sample 3"."""

    name: str
    tokens: Tokens
    engine: tuple[float, ...]
    advantage: float


class LoraLearner:
    """Owns the trainable weights. Version 0 is the base model: B starts at zero.

    Adapters are published as folders of `adapters_folder` named like `AdapterRef.name`.
    """

    def __init__(self, config: Config, model_path: str, adapters_folder: str | Path, device: str = "cpu") -> None:
        self.config = config
        self.version = 0
        self.incarnation = 0
        self._steps = 0
        self._adapters = Path(adapters_folder)
        self._device = torch.device(device)
        dtype = getattr(torch, config.model.dtype)
        disable_progress_bar()
        base = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, attn_implementation="sdpa")
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=list(config.lora.target_modules),
        )
        torch.manual_seed(config.run.seed)
        self.model = get_peft_model(base, lora, autocast_adapter_dtype=False)
        self.policy = Policy(self.model.to(self._device), config.rollout.temperature, config.learner.logprob_chunk)
        self._optimizer = ZeroOptimizer(self.policy, dtype, config.learner)

    def publish(self) -> AdapterRef:
        """Write the current version under its name."""
        name = AdapterRef(self.version, self.incarnation, "").name
        write_adapter(self.model, self._adapters / name)
        return AdapterRef(self.version, self.incarnation, str(self._adapters / name))

    def update(self, batch: Batch, progress: float) -> UpdateStats:
        """One optimizer step on a batch, and the next version published.

        Samples with advantage 0 are not computed, but count in the denominators; metrics other than `staleness/max`
        describe the others. A batch without others makes a new version with the same weights, momentum included.
        Raises StaleBatch or Diverged before any weight has changed.
        """
        self._check_ages(batch)
        started = perf_counter()
        examples = list(_examples(batch.groups))
        rate = learning_rate(self.config.learner, self.version, progress)
        metrics = {
            "learning_rate": rate,
            "staleness/max": float(max(batch.version - group.version for group in batch.groups)),
            **self._step(examples, sum(len(s.token_ids) for g in batch.groups for s in g.samples), rate),
        }
        self.version += 1
        learned = perf_counter()
        adapter = self.publish()
        metrics["time/publish"] = perf_counter() - learned
        metrics["learner/tokens_per_second"] = metrics.pop("tokens") / (learned - started)
        return UpdateStats(adapter, metrics)

    def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        """Log-probabilities of given responses at the rollouts' temperature, by group and sample."""
        samples = [Tokens(group.problem.prompt_ids, s.token_ids) for group in groups for s in group.samples]
        policy = self._logprobs(samples)
        with self.model.disable_adapter():
            base = self._logprobs(samples)
        scores = map(Scores, policy, base)
        return tuple(tuple(next(scores) for _ in group.samples) for group in groups)

    def save(self, folder: str | Path) -> None:
        """Write everything a restore needs into an existing folder, and the adapter into its `adapter/`."""
        write_checkpoint(Path(folder), self._facts(), self._optimizer.state())
        write_adapter(self.model, Path(folder) / "adapter")

    def restore(self, folder: str | Path, incarnation: int) -> None:
        """Continue from what `save` wrote, bit for bit; raises BadInput if it is damaged or of another run."""
        facts, state = read_checkpoint(Path(folder), self._facts(), self._optimizer.shapes())
        self._optimizer.set_state(state, facts.steps)
        self.version, self._steps, self.incarnation = facts.version, facts.steps, incarnation

    def _facts(self) -> Facts:
        config = self.config
        return Facts(
            version=self.version,
            steps=self._steps,
            model=config.model.path,
            dtype=config.model.dtype,
            rank=config.lora.rank,
            alpha=config.lora.alpha,
            target_modules=tuple(config.lora.target_modules),
            seed=config.run.seed,
        )

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

    def _step(self, examples: list[Example], total_tokens: int, rate: float) -> dict[str, float]:
        """One optimizer step on the token-mean loss over `total_tokens`; no step without examples."""
        metrics = {"loss": 0.0, "grad_norm": 0.0, "tokens/trained": 0.0, "learner/padding": 0.0, "tokens": 0.0}
        if not examples:
            return metrics
        torch.manual_seed(self.config.run.seed + self.version)  # dropout repeats after a restore
        self.policy.train()
        cap = self.config.learner.importance_cap
        parts = self._pack([example.tokens for example in examples])
        olds, engines, entropies = [], [], []
        for part in parts:
            members = [examples[i] for i in part.samples]
            logprobs, entropy = self._optimizer.engine(part.to(self._device))
            lengths = torch.tensor([len(member.engine) for member in members])
            advantages = torch.tensor([member.advantage for member in members]).repeat_interleave(lengths)
            engine = torch.tensor([value for member in members for value in member.engine])
            engine, advantages = engine.to(logprobs), advantages.to(logprobs)
            loss = policy_loss(logprobs, engine, advantages, total_tokens, cap)
            if not loss.isfinite():
                self._optimizer.discard()
                raise Diverged(f"the loss of update {self.version + 1} is {loss.item()}, from {_names(members)}")
            self._optimizer.backward(loss)
            metrics["loss"] += loss.item()
            olds.append(logprobs.detach())
            engines.append(engine)
            entropies.append(entropy)
        metrics["grad_norm"] = self._optimizer.step(rate)
        if not torch.tensor(metrics["grad_norm"]).isfinite():
            raise Diverged(f"the gradient of update {self.version + 1} is not finite, from {_names(examples)}")
        self._steps += 1
        old, engine = torch.cat(olds), torch.cat(engines)
        padded = sum(part.padded_tokens for part in parts)
        metrics["tokens"] = float(sum(part.tokens for part in parts))
        metrics["tokens/trained"] = float(old.numel())
        metrics["learner/padding"] = 1.0 - metrics["tokens"] / padded
        metrics["policy/entropy"] = torch.cat(entropies).mean().item()
        metrics |= {f"mismatch/{name}": value for name, value in mismatch(old, engine, cap).items()}
        return metrics

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
        return pack(samples, self.config.learner.tokens_per_microbatch, self.policy.shares_prompts)


def _examples(groups: Iterable[Group]) -> Iterator[Example]:
    """The samples of verified groups whose advantage is not zero."""
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards], dtype=torch.float64)
        masked = torch.tensor([reward.masked for reward in group.rewards])
        advantages = group_advantages(rewards, masked).tolist()
        for number, (sample, advantage) in enumerate(zip(group.samples, advantages, strict=True)):
            if advantage:
                tokens = Tokens(group.problem.prompt_ids, sample.token_ids)
                yield Example(f"group {group.index} sample {number}", tokens, sample.logprobs, advantage)


def _names(examples: Iterable[Example]) -> str:
    return ", ".join(example.name for example in examples)

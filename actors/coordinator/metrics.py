"""The progress of a run, and its row of metrics.jsonl per update."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from microbudget_rl.actors.coordinator.budget import Budget, cost_of
from microbudget_rl.actors.coordinator.ledger import Ledger
from microbudget_rl.actors.messages import Batch, Group, Progress, Status
from microbudget_rl.actors.storage.documents import PolicyScores
from microbudget_rl.conf.schema import Config


@dataclass
class RunState:
    """The parts of `Progress` that only the coordinator knows."""

    budget: Budget
    ledger: Ledger
    config: Config
    phase: str = "starting"
    doing: str = ""
    latest: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    def enter(self, phase: str, doing: str = "") -> None:
        """Begin a phase, in the ledger too."""
        self.phase, self.doing = phase, doing
        self.ledger.enter("run", phase)

    def measured(self, model: str, by_benchmark: Mapping[str, PolicyScores]) -> None:
        """Note the evaluations of a model, by the benchmark's name. Where no answer is weighed, the held-out problems
        have none to get right.
        """
        for name, scores in by_benchmark.items():
            if name or self.config.reward.weighs_answers:
                self.scores[f"{model}: {name or 'held-out'}"] = scores.pass_at_1

    def progress(self, updates: int) -> Progress:
        fitting, limit = self.budget.forecast("turn"), self.config.budget.updates
        return Progress(
            phase=self.phase,
            updates=updates,
            spent=self.budget.spent,
            left=self.budget.left,
            updates_left=fitting if fitting is None or limit is None else min(fitting, limit - updates),
            latest=self.latest,
            cost=cost_of(self.config.budget.price_per_hour, self.budget.spent),
            doing=self.doing,
            scores=self.scores,
        )


def describe_batch(batch: Batch) -> dict[str, float]:
    by_source: dict[str, list[Group]] = {}
    for group in batch.groups:
        by_source.setdefault(group.problem.source, []).append(group)
    samples = [sample for group in batch.groups for sample in group.samples]
    verified = [reward for group in batch.groups for reward in group.rewards if not reward.masked]
    figures = _figures(batch.groups)
    parts = {name: fmean([r.parts[name] for r in verified]) for name in verified[0].parts} if verified else {}
    return {
        "reward/mean": fmean([r.total for r in verified]) if verified else 0.0,
        **{f"reward/{name}": value for name, value in parts.items()},
        "prompt/mean_length": fmean([len(group.problem.prompt_ids) for group in batch.groups]),
        "response/mean_length": figures["mean_length"],
        "response/truncated": fmean([sample.truncated for sample in samples]),
        "groups/zero_variance": figures["zero_variance"],
        "errors/unanimous": unanimous_errors(batch.groups),
        **{f"verify/{status}": figures[status] for status in Status},
        "tokens/generated": sum(group.tokens for group in batch.groups),
        **{f"source/{name}/{key}": n for name in by_source if name for key, n in _figures(by_source[name]).items()},
    }


def unanimous_errors(groups: Sequence[Group]) -> float:
    """Return the fraction of the wrong samples that are in groups without a right one, which give no gradient."""
    wrong = [sum(reward.parts["accuracy"] == 0 for reward in group.rewards if not reward.masked) for group in groups]
    unanimous = sum(number for group, number in zip(groups, wrong, strict=True) if group.pass_rate == 0)
    return unanimous / max(sum(wrong), 1)


def _figures(groups: Sequence[Group]) -> dict[str, float]:
    """Describe the groups of a batch, or those of one source of a mixture."""
    rewards = [reward for group in groups for reward in group.rewards]
    statuses = Counter(reward.status for reward in rewards)
    return {
        **{str(status): statuses[status] for status in Status},
        "groups": len(groups),
        "pass_rate": fmean([reward.parts["accuracy"] for reward in rewards if not reward.masked] or [0.0]),
        "mean_length": fmean([sample.sampled_tokens for group in groups for sample in group.samples]),
        "zero_variance": fmean([group.zero_variance for group in groups]),
    }

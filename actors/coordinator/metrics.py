"""What a row of metrics.jsonl says about a batch and the check of an adapter."""

from collections import Counter
from statistics import fmean

from actors.adapter_check.swap_check import Comparison, Finding
from actors.messages import Batch, Status


def describe_batch(batch: Batch, health: dict[str, int]) -> dict[str, float]:
    """Return rewards, lengths and verdicts of a batch, and the verifier's counts.

    Means are of lists, since `fmean` counts what has no length item by item.
    """
    samples = [sample for group in batch.groups for sample in group.samples]
    lengths = [len(sample.token_ids) for sample in samples]
    rewards = [reward for group in batch.groups for reward in group.rewards]
    judged = [reward for reward in rewards if not reward.masked]
    statuses = Counter(reward.status for reward in rewards)
    parts = {name: fmean([r.parts[name] for r in judged]) for name in judged[0].parts} if judged else {}
    return {
        "reward/mean": fmean([r.total for r in judged]) if judged else 0.0,
        **{f"reward/{name}": value for name, value in parts.items()},
        "prompt/mean_length": fmean([len(group.problem.prompt_ids) for group in batch.groups]),
        "completion/mean_length": fmean(lengths),
        "completion/truncated": fmean([sample.truncated for sample in samples]),
        "groups/zero_variance": fmean([group.zero_variance for group in batch.groups]),
        **{f"verify/{status}": statuses[status] for status in Status},
        "tokens/generated": sum(lengths),
        **{f"verify/{name}": count for name, count in health.items()},
    }


def describe_check(comparison: Comparison) -> dict[str, float]:
    """Return a comparison of engine and learner; `canary/decided` is 0 until the policy has moved enough to tell."""
    return {
        "canary/disagreement": comparison.disagreement,
        "canary/movement": comparison.movement,
        "canary/entropy": comparison.entropy,
        "canary/decided": float(comparison.finding is Finding.AGREES),
        "policy/kl_to_base": comparison.kl_to_base,
    }

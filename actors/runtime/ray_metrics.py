"""The progress of a run as metrics of Ray: its dashboard and Prometheus have them under `ray_microbudget_…`."""

from ray.util.metrics import Gauge

from actors.messages import Progress
from actors.storage.documents import LedgerRecord

LATEST = {"reward": "reward/mean", "entropy": "policy/entropy", "tokens_per_second": "rollout/tokens_per_second"}
"""Keys of metrics.jsonl by the name of the latest update's metric in Ray."""


class RayMetrics:
    """Sets the metrics; Ray reports their last values every few seconds."""

    def __init__(self) -> None:
        self._seconds = _gauge("ledger_seconds", "Seconds that an actor spent on an activity", "actor", "class")
        self._counts = _gauge("ledger_count", "Tokens, groups, updates and crashes by class", "class")
        self._spent = _gauge("budget_spent_seconds", "Seconds of the budget that are spent")
        self._left = _gauge("budget_left_seconds", "Seconds of the budget that are left")
        self._updates = _gauge("updates", "Updates behind the policy")
        self._latest = {name: _gauge(name, f"{key} of the latest update") for name, key in LATEST.items()}

    def show(self, progress: Progress, ledger: LedgerRecord) -> None:
        for actor, activities in ledger.seconds.items():
            for activity, seconds in activities.items():
                self._seconds.set(seconds, {"actor": actor, "class": activity})
        for name, count in ledger.counts.items():
            self._counts.set(count, {"class": name})
        self._spent.set(progress.spent)
        self._left.set(progress.left)
        self._updates.set(progress.updates)
        for name, key in LATEST.items():
            if key in progress.latest:
                self._latest[name].set(progress.latest[key])


def _gauge(name: str, description: str, *tags: str) -> Gauge:
    return Gauge(f"microbudget_{name}", description, tags)

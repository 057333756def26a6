"""Weights & Biases, with the mode, project and key that its own environment variables give."""

import os
from collections.abc import Mapping
from typing import Any

from actors.tracking.identity import Identity

PROJECT = "microbudget"
"""Where WANDB_PROJECT names no other."""

ENDING = ("status", "reason", "updates", "spent_s", "budget_s", "cost", "best_update", "hardware")
"""Entries of summary.json that are single values."""


class WandbTracker:
    """Logs to one run of wandb, over all resumes. Numbers are drawn over `update`, which may come again."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._run: Any = None

    def begin(self, next_update: int) -> None:
        import wandb

        if self._run:
            return
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self._identity.name,
            id=self._identity.id,
            resume="allow",
            config=self._identity.settings,
            dir=str(self._identity.folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="update")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "update": step})

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        self._run.log({f"samples/{_kind(name)}": _table(rows), "update": step})

    def end(self, summary: dict[str, Any]) -> None:
        self._run.summary.update({key: summary[key] for key in ENDING if summary.get(key) is not None})
        if summary.get("events"):
            self._run.log({"events": _table(summary["events"])})
        self._run.finish()


def _kind(name: str) -> str:
    """Return what samples are of: all updates are one table with versions."""
    return name.partition("-")[0] if name.startswith("update-") else name


def _table(rows: list[dict[str, Any]]) -> Any:
    import wandb

    columns = list(rows[0]) if rows else []
    return wandb.Table(columns=columns, data=[[row.get(column) for column in columns] for row in rows])

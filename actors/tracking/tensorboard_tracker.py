"""TensorBoard: event files in the run folder."""

from collections.abc import Mapping
from typing import Any

from actors.tracking.identity import Identity

TEXT_SAMPLES = 3
"""Responses of an update that are shown."""

FLUSH_S = 5

OVERVIEW = {
    "reward/accuracy": "accuracy",
    "eval/pass@1": "held-out pass@1",
    "validation/pass@1": "held-out pass@1",
    "completion/mean_length": "length",
    "policy/entropy": "entropy",
    "policy/kl_to_base": "KL to the base model",
}
"""The curves that a person wants first, by their names in the group `0 overview`, the first one."""


class TensorBoardTracker:
    """Writes tensorboard/."""

    def __init__(self, identity: Identity) -> None:
        self._folder = identity.folder / "tensorboard"
        self._writer: Any = None

    def begin(self, next_update: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer:
            self._writer.close()
        self._writer = SummaryWriter(str(self._folder), purge_step=next_update, flush_secs=FLUSH_S)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
            if name in OVERVIEW:
                self._writer.add_scalar(f"0 overview/{OVERVIEW[name]}", value, step)

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows[:TEXT_SAMPLES]):
            text = f"{row['status']}, gold {row['gold']}\n\n---\n\n{row['prompt']}\n\n---\n\n{row['response']}"
            self._writer.add_text(f"samples/{number}", "    " + text.replace("\n", "\n    "), step)

    def end(self, summary: dict[str, Any]) -> None:
        self._writer.close()

"""Models of the files in a checkpoint, for reading and writing them."""

from pydantic import Field

from actors.storage.documents import Document, FormattedDocument
from actors.storage.fields import Amount, Count, Whole


class CoordinatorState(Document):
    """coordinator.json of a checkpoint. next_unused, used: see `DataCursor`. noise: see `CheckAfterSync`. imitated,
    warm_start_over: losses of the steps of the warm start, and whether it has ended.
    """

    version: Count = 0
    next_unused: Count = 0
    used: list[Count] = Field(default_factory=list)
    dropped: Count = 0
    dropped_tokens: Count = 0
    noise: Amount | None = None
    imitated: list[float] = Field(default_factory=list)
    warm_start_over: bool = False
    counts: dict[str, Whole] = Field(default_factory=dict)


class LearnerRecord(FormattedDocument):
    """learner.json of a checkpoint. steps: number of optimizer steps; at version 0, of an unfinished warm start."""

    version: Count
    steps: Count
    model: str
    dtype: str
    rank: int
    alpha: float
    rslora: bool
    target_modules: list[str]
    seed: int
    steps_per_batch: int

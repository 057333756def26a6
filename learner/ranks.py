"""The learner's processes among each other."""

from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process's place among the `size` of a learner. rendezvous: a file that they all can write and no earlier
    processes have used; none is needed for a learner of one.
    """

    rank: int = 0
    size: int = 1
    rendezvous: str = ""

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def join(self, backend: str) -> None:
        """Wait until all have come; backend: nccl or gloo. A process joins once."""
        if torch.distributed.is_initialized():
            return
        alone = self.size == 1
        store = torch.distributed.HashStore() if alone else torch.distributed.FileStore(self.rendezvous, self.size)
        torch.distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order. All must call it."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]


ALONE = Ranks()

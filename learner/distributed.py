"""The learner's processes among each other."""

import os
import socket
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch
from torch.distributed import HashStore, TCPStore

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process's place among the `size` of a learner. store: where they meet, each with its own end of it; none is
    needed for a learner of one.
    """

    rank: int = 0
    size: int = 1
    store: TCPStore | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def join(self, backend: str) -> None:
        """Wait until all have come; backend: nccl or gloo. A process joins once."""
        if torch.distributed.is_initialized():
            return
        torch.distributed.init_process_group(
            backend, store=self.store or HashStore(), rank=self.rank, world_size=self.size
        )

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order. All must call it."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def invite(host: str) -> TCPStore:
    """A store in this process, on a free port of one of this machine's addresses and no other."""
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=os.dup(listener.fileno()))


def accept(host: str, port: int) -> TCPStore:
    """The other end of a store that another process of the learner has made."""
    return TCPStore(host, port, is_master=False)


def speak_through(address: str) -> None:
    """Let gloo use the network interface that has this address. By itself it takes the one of the host's name, which
    often stands for the machine alone.
    """
    cards = psutil.net_if_addrs().items()
    names = [name for name, addresses in cards if any(known.address == address for known in addresses)]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])


ALONE = Ranks()

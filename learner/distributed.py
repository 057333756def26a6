"""The ranks of a learner: where they meet, and what they exchange."""

import os
import socket
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch
from torch import Tensor
from torch.distributed import TCPStore

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process's place among those of a learner. store: its end of the one where they meet; not needed by one."""

    rank: int = 0
    size: int = 1
    store: TCPStore | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def join(self, backend: str) -> None:
        """Wait until all ranks have come; a second call does nothing. backend: nccl or gloo.

        DeepSpeed asks for a group of one, too: its backend is torch's fake one, whose results are what it is given, and
        which opens no port.
        """
        if not torch.distributed.is_initialized():
            backend = "fake" if self.size == 1 else backend
            torch.distributed.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order. All must call it."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def spread(self, tensor: Tensor | None, like: Tensor) -> Tensor:
        """Return the first rank's tensor, which is float32, on the device and in the shape of `like`. All must call it,
        the others with None. Of one rank it is returned as it is.
        """
        if self.size == 1:
            assert tensor is not None
            return tensor
        whole = torch.empty_like(like, dtype=torch.float32) if tensor is None else tensor.to(like.device)
        torch.distributed.broadcast(whole, src=0)
        return whole


ALONE = Ranks()


def start_store(host: str) -> TCPStore:
    """Start a store in this process, on a free port of one of this machine's addresses and no other."""
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=os.dup(listener.fileno()))


def join_store(host: str, port: int) -> TCPStore:
    """Connect to the store that another rank has started."""
    return TCPStore(host, port, is_master=False)


def use_interface(address: str) -> None:
    """Let gloo use the network interface of this address. Its own choice often cannot be reached from outside."""
    cards = psutil.net_if_addrs().items()
    names = [name for name, addresses in cards if any(known.address == address for known in addresses)]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])

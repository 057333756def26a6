"""Connects the processes of a learner, and exchanges values among them."""

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
class World:
    """The processes of a learner, seen from one of them. store: their meeting point; a single process needs none."""

    rank: int = 0
    size: int = 1
    store: TCPStore | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the files for all."""
        return self.rank == 0

    def join(self, backend: str) -> None:
        """Wait until all processes have joined; a second call does nothing. backend: nccl or gloo.

        DeepSpeed needs a group even of one process: that has torch's fake backend, which opens no port.
        """
        if not torch.distributed.is_initialized():
            backend = "fake" if self.size == 1 else backend
            torch.distributed.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in their order. All must call it."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def spread(self, tensor: Tensor | None, like: Tensor) -> Tensor:
        """Return the first process's float32 tensor, on the device and in the shape of `like`. All must call it, the
        others with None. A single process gets its own tensor back.
        """
        if self.size == 1:
            assert tensor is not None
            return tensor
        whole = torch.empty_like(like, dtype=torch.float32) if tensor is None else tensor.to(like.device)
        torch.distributed.broadcast(whole, src=0)
        return whole


ALONE = World()


def start_store(host: str) -> TCPStore:
    """Start a store in this process, on a free port of this address only."""
    with socket.create_server((host, 0)) as listener:
        port = listener.getsockname()[1]
        return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=os.dup(listener.fileno()))


def join_store(host: str, port: int) -> TCPStore:
    """Connect to the store that another process has started."""
    return TCPStore(host, port, is_master=False)


def use_interface(address: str) -> None:
    """Make gloo and NCCL use the network interface of this address. Their own choice often cannot be reached from
    outside. NCCL takes a name without `=` for a prefix of several names.
    """
    interfaces = psutil.net_if_addrs().items()
    names = [name for name, addresses in interfaces if any(known.address == address for known in addresses)]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={names[0]}")

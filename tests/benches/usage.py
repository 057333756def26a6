"""What a process has taken of a processor's memory or of a card's, and when a device has done what it was given."""

import ctypes
import gc
from pathlib import Path


def begin(device: str) -> int:
    """Return the bytes that this process takes at rest, and let its peak start again from here."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what is free does not count as resting
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    return status("VmRSS")


def peak(device: str) -> int:
    """Return the most bytes that were taken since; on a card, by tensors."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return status("VmHWM")


def finish(device: str) -> None:
    """Wait until a card has done all that it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def status(name: str) -> int:
    """Return a line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

"""Reinforcement learning with verifiable rewards for one GPU and one day."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microbudget_rl.launch.api import BadInput, Run, evaluate, open, plan, preview, signal, train  # noqa: A004

__all__ = ["BadInput", "Run", "evaluate", "open", "plan", "preview", "signal", "train"]


def __getattr__(name: str) -> Any:
    """Import the interface on first use, so that an import of the package takes no time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from microbudget_rl.launch import api

    return getattr(api, name)

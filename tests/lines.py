"""Counts the lines of Python, which have a budget of their own in pyproject.toml."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "outside_tests": ("actors", "conf", "docs", "launch", "learner", "microbudget_rl", "rewards"),
    "in_tests": ("tests",),
}


def budget() -> dict[str, int]:
    """Return the most lines by part of the tree."""
    stated: dict[str, int] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["microbudget"]["lines"]
    return stated


def counted() -> dict[str, int]:
    """Return the lines of all Python files by part of the tree."""
    return {
        part: sum(file.read_bytes().count(b"\n") for folder in folders for file in (ROOT / folder).rglob("*.py"))
        for part, folders in FOLDERS.items()
    }

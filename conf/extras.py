"""What is installed here: a clone or a package, and which of its extras."""

from importlib.util import find_spec
from pathlib import Path

from microbudget_rl.conf.errors import BadInput

IN_CLONE = (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file()
"""Whether this is a clone of the project, where each command is a file; an installed package has `microbudget`."""

SET_UP = "delete .venv and run bash launch/setup.sh" if IN_CLONE else "install microbudget-rl[cuda] or [cpu] anew"
"""Remedy for a missing or wrong build of vLLM."""

EXTRAS = dict.fromkeys(("huggingface_hub", "httpx2"), "hub") | dict.fromkeys(("math_verify", "sympy"), "verify")
"""Small extra of this package that installs a module. All others, and these, come with `cuda` and `cpu`."""


def require(*modules: str) -> None:
    """Raise BadInput, which names the extra to install, for modules that are not installed."""
    if fault := not_installed(*modules):
        raise BadInput(fault)


def not_installed(*modules: str) -> str:
    """Return a sentence on the modules that are not installed; empty if all are."""
    absent = [name for name in modules if find_spec(name) is None]
    extras = {EXTRAS.get(name, "cuda") for name in absent}
    extra = extras.pop() if len(extras) == 1 else "cuda"
    remedy = f"pip install 'microbudget-rl[{extra}]'{', or [cpu] without a GPU' if extra == 'cuda' else ''}"
    verb = "are" if len(absent) > 1 else "is"
    return f"{' and '.join(absent)} {verb} not installed here: {SET_UP if IN_CLONE else remedy}" if absent else ""

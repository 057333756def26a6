"""The copy of the project that runs: a clone, or an installed package."""

from pathlib import Path

from microbudget_rl.conf.errors import BadInput

ROOT = Path(__file__).resolve().parents[1]
"""Folder of a clone, or of the installed package."""

IN_CLONE = (ROOT / "pyproject.toml").is_file()
"""Whether this is a clone of the project, where each command is a file; an installed package has `microbudget`."""

PACKAGE = ROOT / "microbudget_rl" if IN_CLONE else ROOT
"""Folder that is imported as `microbudget_rl`. In a clone it has links to the folders beside it."""

SET_UP = "delete .venv and run bash launch/setup.sh" if IN_CLONE else "install microbudget-rl[cuda] or [cpu] anew"
"""Remedy for a missing or wrong build of vLLM."""

REINSTALL = "run bash launch/setup.sh" if IN_CLONE else "install microbudget-rl again"
"""Remedy for an installation of another version."""


def check_working_folder() -> None:
    """Raise BadInput if the working folder has another `microbudget_rl`, which processes of Ray, of vLLM and of the
    verifier would import instead. An installed package comes before a folder without `__init__.py`, a clone does not.
    """
    for name in ("microbudget_rl.py", "microbudget_rl" if IN_CLONE else "microbudget_rl/__init__.py"):
        path = Path(name)
        if path.exists() and path.resolve() not in (PACKAGE, PACKAGE / "__init__.py"):
            raise BadInput(f"{path.absolute()} hides this project's package: rename it, or start in another folder")

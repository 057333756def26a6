"""The copy of the project that runs: a clone, or an installed package with some of its extras."""

import sys
from importlib.util import find_spec
from pathlib import Path

from microbudget_rl.conf.errors import BadInput

ROOT = Path(__file__).resolve().parents[1]
"""Folder of a clone, or of the installed package."""

IN_CLONE = (ROOT / "pyproject.toml").is_file()
"""Whether this is a clone of the project, where each command is a file; an installed package has `microbudget`."""

PACKAGE = ROOT / "microbudget_rl" if IN_CLONE else ROOT
"""Folder that is imported as `microbudget_rl`. In a clone it has links to the folders beside it."""

PACKAGED = {Path("docs/start/gallery"): PACKAGE / "gallery", Path("conf/recipes"): PACKAGE / "conf/recipes"}
"""Folders of recipes and of their files, as docs and recipes name them, and where they are in any working folder."""

SET_UP = "delete .venv and run bash launch/setup.sh" if IN_CLONE else "install microbudget-rl[cuda] or [cpu] again"
"""Remedy for a missing or wrong build of vLLM, or of the project itself."""

EXTRAS = dict.fromkeys(("huggingface_hub", "httpx2"), "hub") | dict.fromkeys(("math_verify", "sympy"), "verify")
"""Small extra of this package that installs a module. All others, and these, come with `cuda` and `cpu`."""


def packaged(path: Path) -> Path:
    """Return the path of a file, or that of the project's own if it is one and not below the working folder."""
    return path if path.exists() or path.parent not in PACKAGED else PACKAGED[path.parent] / path.name


def check_working_folder() -> None:
    """Raise BadInput if the working folder has another `microbudget_rl`, which processes of Ray, of vLLM and of the
    verifier would import instead. An installed package comes before a folder without `__init__.py`, a clone does not.
    Raise it also for a script of a clone whose environment has the code of another one, and without a working folder.
    """
    try:
        Path.cwd()
    except OSError:
        raise BadInput("the working folder has been removed: change to one that exists") from None
    if (folder := Path(sys.path[0])).name == "launch" and (folder.parent / "microbudget_rl").is_dir():
        raise BadInput(f"the scripts in {folder} would use the code in {ROOT}: use the environment of their own clone")
    for name in ("microbudget_rl.py", "microbudget_rl" if IN_CLONE else "microbudget_rl/__init__.py"):
        path = Path(name)
        if path.exists() and path.resolve() not in (PACKAGE, PACKAGE / "__init__.py"):
            raise BadInput(f"{path.absolute()} hides this project's package: rename it, or start in another folder")


def require(*modules: str) -> None:
    """Raise BadInput, which names the extra to install, for modules that are not installed."""
    if fault := not_installed(*modules):
        raise BadInput(fault)


def not_installed(*modules: str) -> str:
    """Return a sentence on the modules that are not installed; empty if all are."""
    absent = [name for name in modules if find_spec(name) is None]
    extra = EXTRAS.get(absent[0], "cuda") if len(absent) == 1 else "cuda"
    remedy = f"pip install 'microbudget-rl[{extra}]'{', or [cpu] without a GPU' if extra == 'cuda' else ''}"
    verb = "are" if len(absent) > 1 else "is"
    return f"{' and '.join(absent)} {verb} not installed here: {SET_UP if IN_CLONE else remedy}" if absent else ""

"""Finds a user's own function."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf.errors import BadInput


def find(key: str, reference: str) -> Callable[..., Any]:
    """Import `module.path:function`, also from the working directory. Raises BadInput, naming the key."""
    module, _, name = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a module is the person's own code, which may raise anything
        raise BadInput(
            f"{key}: cannot import '{reference}' ({type(error).__name__}: {error}): "
            f"give module.path:function, importable from {here}"
        ) from error
    if not callable(found):
        raise BadInput(f"{key}: '{reference}' is a {type(found).__name__}, not a function")
    return found

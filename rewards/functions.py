"""A user's own function, by where it can be imported from."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf.errors import BadInput


def find(key: str, reference: str) -> Callable[..., Any]:
    """The function `module.path:function`, looked for in the working directory too. Raises BadInput, naming the key."""
    module, _, name = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{key}: cannot import '{reference}' ({error}): give module.path:function, importable from {here}"
        ) from error
    if not callable(found):
        raise BadInput(f"{key}: '{reference}' is a {type(found).__name__}, not a function")
    return found
